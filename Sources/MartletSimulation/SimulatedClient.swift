import MartletBasics
package import MartletReactor
package import MartletWire

/// Why a request of a simulated client has no answer.
package enum ClientFault: Error, Equatable, Sendable {
    /// The connection could not be made.
    case refused(String)
    /// The connection has ended: nobody knows whether the request was carried out.
    case lost
    /// What came is no answer to what was asked.
    case malformed(String)
}

/// One connection of a Kafka client to a broker, over the simulated network. Requests may follow each other without
/// waiting; their answers come in the same order, as Kafka promises.
///
/// Confined to its loop. It does nothing by itself: whoever drives it decides what is asked again.
package final class SimulatedClient: @unchecked Sendable {
    /// More than this, and a frame is no answer of a broker.
    private static let frameBytesLimit = 64 << 20
    /// A test that asks more at once has run away.
    private static let waitingLimit = 10_000
    private static let receiveSize = 64 << 10

    private struct Waiting {
        var correlationID: Int32
        var take: (Result<[UInt8], ClientFault>) -> Void
    }

    package let name: String
    package let loop: any EventLoop
    private let network: any Network
    private var socket: (any StreamSocket)?
    private var outgoing = ByteBuffer()
    private var sentCount = 0
    private var incoming: [UInt8] = []
    private var scratch: [UInt8] = []
    private var waiting = RingQueue<Waiting>()
    private var nextCorrelationID: Int32 = 0
    /// Called with the API of each request that was answered, or that nobody answers.
    package var onAnswer: ((Int16) -> Void)?

    package init(_ name: String, on host: SimulatedHost, loop index: Int = 0) {
        self.name = name
        loop = host.loops[index]
        network = host.network
    }

    package var isConnected: Bool { socket != nil }
    /// Requests whose answers have not come.
    package var inFlightCount: Int { waiting.count }

    // MARK: The connection

    package func connect(to address: SocketAddress) async throws(ClientFault) {
        precondition(loop.isCurrent && socket == nil, "a client connects on its loop, and once at a time")
        let made: any StreamSocket
        do throws(SystemError) {
            made = try await network.connect(to: address, loop: loop)
        } catch {
            throw .refused("\(error)")
        }
        socket = made
        outgoing.reset()
        sentCount = 0
        incoming = []
        made.attach(to: loop) { [weak self] readiness in self?.ready(readiness) }
        made.watch(.readable)
    }

    /// What waits for an answer gets none.
    package func close() { end(.lost) }

    private func end(_ fault: ClientFault) {
        guard let socket else { return }
        self.socket = nil
        socket.close()
        var left = waiting
        waiting = RingQueue()
        while let one = left.popFirst() { one.take(.failure(fault)) }
    }

    // MARK: Asking

    /// Sends a request. `then` is called once, on the loop: with the answer, or when it is known that none will come.
    package func ask<R: WireRequest>(
        _ request: R, version: Int16, then: @escaping (Result<R.Response, ClientFault>) -> Void
    ) {
        guard let correlationID = enqueue(request, version: version) else { return then(.failure(.lost)) }
        precondition(waiting.count < Self.waitingLimit, "a simulated client asks a bounded number of things at once")
        waiting.append(
            Waiting(correlationID: correlationID) { [onAnswer] result in
                if case .success = result { onAnswer?(R.apiKey) }
                then(result.flatMap { Self.decode(R.self, $0, version: version) })
            })
        flush()
    }

    package func ask<R: WireRequest>(_ request: R, version: Int16) async throws(ClientFault) -> R.Response {
        let result: Result<R.Response, ClientFault> = await withUnsafeContinuation { continuation in
            ask(request, version: version) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Sends a request that has no answer: Produce with acks=0. False where there is no connection.
    @discardableResult
    package func tell<R: WireRequest>(_ request: R, version: Int16) -> Bool {
        guard enqueue(request, version: version) != nil else { return false }
        onAnswer?(R.apiKey)
        flush()
        return true
    }

    private func enqueue<R: WireRequest>(_ request: R, version: Int16) -> Int32? {
        precondition(loop.isCurrent, "a client asks on its loop")
        guard socket != nil else { return nil }
        nextCorrelationID &+= 1
        let start = outgoing.count
        outgoing.int32(0)
        let header = RequestHeader(
            apiKey: R.apiKey, apiVersion: version, correlationID: nextCorrelationID, clientID: name)
        do {
            try header.encode(into: &outgoing)
            try request.encode(into: &outgoing, version: version)
        } catch {
            preconditionFailure("a simulated client made a request that version \(version) cannot say: \(error)")
        }
        outgoing.patch(Int32(outgoing.count - start - 4), at: start)
        return nextCorrelationID
    }

    private static func decode<R: WireRequest>(
        _: R.Type, _ frame: [UInt8], version: Int16
    ) -> Result<R.Response, ClientFault> {
        frame.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            do throws(DecodingFault) {
                guard let api = ApiKey(rawValue: R.apiKey) else { return .failure(.malformed("an API without a schema")) }
                _ = try ResponseHeader.decode(from: &reader, version: api.responseHeaderVersion(version))
                var response = try R.Response.decode(from: &reader, version: version)
                guard reader.isAtEnd else { return .failure(.malformed("bytes after the answer of \(api)")) }
                response.ownBytes(of: bytes)
                return .success(response)
            } catch {
                return .failure(.malformed("\(error)"))
            }
        }
    }

    // MARK: Bytes

    private func ready(_ readiness: Readiness) {
        if readiness.contains(.readable) || readiness.contains(.hungUp) { receive() }
        if readiness.contains(.writable) { flush() }
    }

    private func flush() {
        while let socket, sentCount < outgoing.count {
            switch socket.send(UnsafeRawBufferPointer(rebasing: outgoing.bytes[sentCount...]), more: false) {
            case .moved(let count): sentCount += count
            case .wouldBlock: return socket.watch([.readable, .writable])
            case .ended: return end(.lost)
            }
        }
        guard let socket else { return }
        outgoing.reset()
        sentCount = 0
        socket.watch(.readable)
    }

    private func receive() {
        if scratch.isEmpty { scratch = [UInt8](repeating: 0, count: Self.receiveSize) }
        while let socket {
            let transfer = scratch.withUnsafeMutableBytes {
                socket.receive(into: $0, UnsafeMutableRawBufferPointer(start: nil, count: 0))
            }
            switch transfer {
            case .moved(let count): incoming += scratch[..<count]
            case .wouldBlock: return
            case .ended: return end(.lost)
            }
            takeFrames()
        }
    }

    private func takeFrames() {
        var start = 0
        while socket != nil, incoming.count - start >= 4 {
            let size = incoming[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
            guard size >= 4, size <= Self.frameBytesLimit else { return end(.malformed("a frame of \(size) bytes")) }
            guard incoming.count - start >= 4 + size else { break }
            let frame = Array(incoming[start + 4..<start + 4 + size])
            start += 4 + size
            let correlationID = Int32(truncatingIfNeeded: frame[..<4].reduce(0) { $0 << 8 | Int($1) })
            guard let one = waiting.first, one.correlationID == correlationID else {
                return end(.malformed("an answer out of order"))
            }
            waiting.popFirst()
            one.take(.success(frame))
        }
        if socket == nil { incoming = [] } else { incoming.removeFirst(start) }
    }
}
