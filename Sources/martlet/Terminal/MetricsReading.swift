import MartletBasics
import MartletClient
import MartletModel
import MartletReactor

/// The samples of one page of metrics that have a topic and a partition: by family, then by partition.
struct PartitionSamples {
    private var values: [String: [TopicPartition: String]] = [:]

    /// From the text format: `name{topic="…",partition="…"} value`.
    init(_ page: [UInt8]) {
        for line in page.split(separator: UInt8(ascii: "\n")) where line.first != UInt8(ascii: "#") {
            guard let brace = line.firstIndex(of: UInt8(ascii: "{")),
                let end = line.lastIndex(of: UInt8(ascii: "}")), brace < end,
                line.index(end, offsetBy: 2, limitedBy: line.endIndex) != nil
            else { continue }
            // a topic's name has no character that would be escaped
            let labels = String(decoding: line[(brace + 1)..<end], as: UTF8.self).split(separator: ",")
                .map { $0.split(separator: "\"") }
            guard labels.count == 2, labels.allSatisfy({ $0.count == 2 }), labels[0][0] == "topic=",
                labels[1][0] == "partition=", let index = Int32(labels[1][1])
            else { continue }
            let partition = TopicPartition(String(labels[0][1]), index)
            values[String(decoding: line[..<brace], as: UTF8.self), default: [:]][partition] =
                String(decoding: line[(end + 2)...], as: UTF8.self)
        }
    }

    func integer(_ family: String, _ partition: TopicPartition) -> Int64? { values[family]?[partition].flatMap { Int64($0) } }
}

/// Asks a broker for its page of metrics, where its own settings say that it is told.
final class MetricsReading: @unchecked Sendable {
    private static let answerBytesLimit = 256 << 20
    private static let timeLimit = Interval.seconds(10)

    private let socket: any StreamSocket
    private var request: [UInt8]
    private var answer: [UInt8] = []
    private var continuation: UnsafeContinuation<[UInt8]?, Never>?

    private init(_ socket: any StreamSocket, host: String) {
        self.socket = socket
        request = Array("GET /metrics HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n".utf8)
    }

    /// The page of the broker with this id, which clients reach at `host`.
    static func page(of broker: BrokerID, at host: String, _ session: Session) async throws -> [UInt8] {
        let told = try await session.client.configs(of: .broker(broker)).first { $0.name == "martlet.metrics.listener" }?.value
        guard let told, let listener = try MetricsListener.parse(told, setting: "martlet.metrics.listener") else {
            throw CommandFault("broker \(broker) tells no metrics: its martlet.metrics.listener is empty, or it is no Martlet")
        }
        let isEverywhere = listener.host.isEmpty || listener.host == "0.0.0.0" || listener.host == "::"
        let place = MetricsListener(host: isEverywhere ? host : listener.host, port: listener.port)
        do {
            let network = session.host.network
            guard let literal = try network.resolve(place.host).first else { throw CommandFault("nothing is called so") }
            let socket = try await network.connect(to: SocketAddress(host: literal, port: place.port), loop: session.loop)
            let reading = MetricsReading(socket, host: "\(place)")
            guard let page = await reading.run(session.loop) else { throw CommandFault("it gave no page") }
            return page
        } catch {
            let reason = (error as? CommandFault)?.description ?? "\(error)"
            throw CommandFault(
                "the metrics of broker \(broker) cannot be read at \(place): \(reason). Ask where they can be reached, "
                    + "as on the broker's own machine")
        }
    }

    private func run(_ loop: any EventLoop) async -> [UInt8]? {
        await withUnsafeContinuation { continuation in
            self.continuation = continuation
            loop.schedule(after: Self.timeLimit) { self.end(nil) }
            socket.attach(to: loop) { readiness in self.ready(readiness) }
            socket.watch([.readable, .writable])
        }
    }

    private func ready(_ readiness: Readiness) {
        if readiness.contains(.writable), !request.isEmpty { send() }
        if readiness.contains(.readable) || readiness.contains(.hungUp) { receive() }
    }

    private func send() {
        switch request.withUnsafeBytes({ socket.send($0, more: false) }) {
        case .moved(let count): request.removeFirst(count)
        case .wouldBlock: return
        case .ended: end(nil)
        }
        if request.isEmpty { socket.watch(.readable) }
    }

    private func receive() {
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        while continuation != nil {
            let transfer = buffer.withUnsafeMutableBytes {
                socket.receive(into: $0, UnsafeMutableRawBufferPointer(start: nil, count: 0))
            }
            switch transfer {
            case .moved(let count):
                answer += buffer[..<count]
                if answer.count > Self.answerBytesLimit { end(nil) }
            case .wouldBlock: return
            case .ended: end(body())
            }
        }
    }

    /// What follows the head of a whole answer with status 200; the connection's end is its own.
    private func body() -> [UInt8]? {
        guard answer.starts(with: "HTTP/1.1 200".utf8) else { return nil }
        let ending = Array("\r\n\r\n".utf8)
        var place = answer.startIndex
        while place + 4 <= answer.count {
            if answer[place..<(place + 4)].elementsEqual(ending) { return Array(answer[(place + 4)...]) }
            place += 1
        }
        return nil
    }

    private func end(_ page: [UInt8]?) {
        guard let continuation else { return }
        self.continuation = nil
        socket.close()
        continuation.resume(returning: page)
    }
}
