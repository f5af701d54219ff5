import MartletBasics
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire

/// What a fake broker does with a request.
enum FakeReply<Message: WireResponse> {
    case answer(Message)
    /// What follows the correlation id.
    case bytes([UInt8])
    /// A whole frame, its size before it.
    case frame([UInt8])
    case silence
    case hangUp
}

/// A broker that says what a test wants it to say, on a simulated machine. Requests are decoded from the same schemas,
/// so it can be as wrong as no real broker is.
final class FakeBroker: @unchecked Sendable {
    struct Seen: Equatable {
        var api: ApiKey
        var version: Int16
    }

    let host: SimulatedHost
    let id: BrokerID
    /// What ApiVersions answers; nil is an answer of a broker that does not know the version asked for.
    var offered: [ApiKey: ClosedRange<Int16>]
    /// The highest version of ApiVersions that it knows.
    var apiVersionsLimit: Int16 = 4
    private(set) var seen: [Seen] = []
    private(set) var connectionsCount = 0
    private var connections: [Connection] = []
    private var handlers: [ApiKey: (ByteReader, Int16) -> Outcome] = [:]
    private var listener: (any ListeningSocket)?

    fileprivate enum Outcome {
        case body([UInt8])
        case frame([UInt8])
        case silence
        case hangUp
    }

    var address: SocketAddress { SocketAddress(host: host.address, port: 9092) }

    init(_ host: SimulatedHost, id: BrokerID) {
        self.host = host
        self.id = id
        offered = Dictionary(uniqueKeysWithValues: AdvertisedVersions.entries(hasPeers: false).map { ($0.api, $0.versions) })
    }

    func listen() throws {
        let loop = host.loops[0]
        listener = try host.network.listen(on: address, loop: loop) { [unowned self] socket in
            connectionsCount += 1
            let connection = Connection(self, socket)
            connections.append(connection)
            socket.attach(to: loop) { [weak connection] _ in connection?.ready() }
            socket.watch(.readable)
        }
    }

    func stopListening() {
        listener?.close()
        listener = nil
    }

    /// Ends every connection, in a moment.
    func cut() {
        host.loops[0].execute { [self] in
            for connection in connections { connection.socket.close() }
            connections = []
        }
    }

    func on<R: WireRequest>(_: R.Type, _ answer: @escaping (R, Int16) -> FakeReply<R.Response>) {
        guard let api = ApiKey(rawValue: R.apiKey) else { return }
        handlers[api] = { reader, version in
            var reader = reader
            guard var request = try? R.decode(from: &reader, version: version) else { return .hangUp }
            request.ownBytes(of: reader.bytes)
            switch answer(request, version) {
            case .answer(let message):
                var body = ByteBuffer()
                if api.responseHeaderVersion(version) >= 1 { body.uvarint(0) }
                guard (try? message.encode(into: &body, version: version)) != nil else { return .hangUp }
                return .body(body.array)
            case .bytes(let bytes): return .body(bytes)
            case .frame(let bytes): return .frame(bytes)
            case .silence: return .silence
            case .hangUp: return .hangUp
            }
        }
    }

    func count(of api: ApiKey) -> Int { seen.count { $0.api == api } }

    // MARK: Requests

    fileprivate func outcome(_ frame: UnsafeRawBufferPointer) -> (correlationID: Int32, Outcome) {
        var reader = ByteReader(frame)
        guard let header = try? RequestHeader.decode(from: &reader), let api = header.api else { return (0, .hangUp) }
        seen.append(Seen(api: api, version: header.apiVersion))
        if let handler = handlers[api] { return (header.correlationID, handler(reader, header.apiVersion)) }
        guard api == .apiVersions else { return (header.correlationID, .hangUp) }
        return (header.correlationID, apiVersions(header.apiVersion))
    }

    private func apiVersions(_ version: Int16) -> Outcome {
        var response = ApiVersionsResponse()
        response.apiKeys = offered.keys.sorted { $0.rawValue < $1.rawValue }.map { api in
            var entry = ApiVersionsResponse.ApiVersion()
            entry.apiKey = api.rawValue
            entry.minVersion = offered[api]?.lowerBound ?? 0
            entry.maxVersion = offered[api]?.upperBound ?? 0
            return entry
        }
        var answered = version
        if version > apiVersionsLimit {
            response.errorCode = .unsupportedVersion
            response.apiKeys = response.apiKeys.filter { $0.apiKey == ApiKey.apiVersions.rawValue }
            answered = 0
        }
        var body = ByteBuffer()
        return (try? response.encode(into: &body, version: answered)) == nil ? .hangUp : .body(body.array)
    }

    private final class Connection: @unchecked Sendable {
        unowned let broker: FakeBroker
        let socket: any StreamSocket
        private var received: [UInt8] = []

        init(_ broker: FakeBroker, _ socket: any StreamSocket) {
            self.broker = broker
            self.socket = socket
        }

        func ready() {
            var scratch = [UInt8](repeating: 0, count: 65_536)
            while true {
                let transfer = scratch.withUnsafeMutableBytes {
                    socket.receive(into: $0, UnsafeMutableRawBufferPointer(start: nil, count: 0))
                }
                switch transfer {
                case .moved(let count): received += scratch[..<count]
                case .wouldBlock: return takeFrames()
                case .ended: return socket.close()
                }
            }
        }

        private func takeFrames() {
            while received.count >= 4 {
                let size = received[..<4].reduce(0) { $0 << 8 | Int($1) }
                guard received.count >= 4 + size else { return }
                let (correlationID, outcome) = received[4..<4 + size].withUnsafeBytes { broker.outcome($0) }
                received.removeFirst(4 + size)
                switch outcome {
                case .silence: break
                case .hangUp: return socket.close()
                case .frame(let bytes): send(bytes)
                case .body(let body):
                    var frame = ByteBuffer()
                    frame.int32(Int32(body.count + 4))
                    frame.int32(correlationID)
                    frame.append(body)
                    send(frame.array)
                }
            }
        }

        /// Small answers: they fit into the pipe.
        private func send(_ bytes: [UInt8]) {
            var rest = bytes[...]
            while !rest.isEmpty {
                guard case .moved(let count) = rest.withUnsafeBytes({ socket.send($0, more: false) }) else { return }
                rest = rest.dropFirst(count)
            }
        }
    }
}
