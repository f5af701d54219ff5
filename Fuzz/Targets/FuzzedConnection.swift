import MartletBasics
import MartletReactor
import MartletSimulation
import MartletWire

/// One connection to the broker under the fuzzer, which sends whatever it is told to and knows what it waits for. Every
/// answer must be one to a request that was sent, in order, and must be what the schema of its API says.
final class FuzzedConnection: @unchecked Sendable {
    struct Awaited {
        var api: Int16
        var version: Int16
        var correlationID: Int32
        /// Nothing may come: Produce without acknowledgement.
        var mayBeSilent = false
    }

    private static let receiveSize = 64 << 10

    private let loop: any EventLoop
    private var socket: (any StreamSocket)?
    private var outgoing: [UInt8] = []
    private var incoming: [UInt8] = []
    private var scratch = [UInt8](repeating: 0, count: FuzzedConnection.receiveSize)
    private(set) var awaited: [Awaited] = []
    private(set) var hasEnded = false
    private(set) var isConnected = false
    /// What was sent is no frame, so that nobody knows where the next one begins.
    var isWild = false
    var onAnswer: ((any WireMessage, ApiKey) -> Void)?

    init(_ host: SimulatedHost, to address: SocketAddress) {
        loop = host.loops[0]
        host.network.connect(to: address, loop: loop) { [self] result in
            guard case .success(let made) = result else { return hasEnded = true }
            socket = made
            isConnected = true
            made.attach(to: loop) { [weak self] readiness in self?.ready(readiness) }
            flush()
        }
    }

    /// What must be answered next.
    var next: Awaited? { awaited.first { !$0.mayBeSilent } }

    func send(_ bytes: [UInt8], awaiting request: Awaited?) {
        guard !hasEnded else { return }
        if let request { awaited.append(request) }
        outgoing += bytes
        loop.execute { [self] in flush() }
    }

    func close() {
        loop.execute { [self] in
            socket?.close()
            socket = nil
            hasEnded = true
        }
    }

    private func ready(_ readiness: Readiness) {
        if readiness.contains(.readable) || readiness.contains(.hungUp) { receive() }
        if readiness.contains(.writable) { flush() }
    }

    private func flush() {
        while let socket, !outgoing.isEmpty {
            switch outgoing.withUnsafeBytes({ socket.send($0, more: false) }) {
            case .moved(let count): outgoing.removeFirst(count)
            case .wouldBlock: return socket.watch([.readable, .writable])
            case .ended: return ended()
            }
        }
        socket?.watch(.readable)
    }

    private func ended() {
        socket?.close()
        socket = nil
        hasEnded = true
    }

    private func receive() {
        while let socket {
            switch scratch.withUnsafeMutableBytes({ socket.receive(into: $0, .init(start: nil, count: 0)) }) {
            case .moved(let count): incoming += scratch[..<count]
            case .wouldBlock: return
            case .ended: return ended()
            }
            takeFrames()
        }
    }

    private func takeFrames() {
        var start = 0
        while incoming.count - start >= 4 {
            let size = incoming[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
            guard incoming.count - start - 4 >= size else { break }
            incoming[start + 4..<start + 4 + size].withUnsafeBytes(take)
            start += 4 + size
        }
        incoming.removeFirst(start)
    }

    private func take(_ frame: UnsafeRawBufferPointer) {
        var reader = ByteReader(frame)
        guard let correlationID = try? reader.int32() else { preconditionFailure("an answer of \(frame.count) bytes") }
        if isWild, !awaited.contains(where: { $0.correlationID == correlationID }) { return }
        while let first = awaited.first, first.correlationID != correlationID, first.mayBeSilent { awaited.removeFirst() }
        guard let request = awaited.first, request.correlationID == correlationID else {
            preconditionFailure("an answer to request \(correlationID), while \(awaited) are waited for")
        }
        awaited.removeFirst()
        check(frame, request)
    }

    private func check(_ frame: UnsafeRawBufferPointer, _ request: Awaited) {
        guard let api = ApiKey(rawValue: request.api), let answer = answersByKey[request.api] else { return }
        // a version that is not served is answered in version 0, which says so
        let isOffered = api != .apiVersions || AdvertisedVersions.isServed(api, request.version)
        let version = isOffered ? request.version : 0
        var reader = ByteReader(frame)
        do {
            _ = try ResponseHeader.decode(from: &reader, version: api.responseHeaderVersion(version))
            let message = try answer.decode(from: &reader, version: version)
            precondition(reader.isAtEnd, "\(reader.remaining) bytes after the answer of \(api) \(version)")
            onAnswer?(message, api)
        } catch {
            preconditionFailure("the answer of \(api) \(version) cannot be read: \(error)")
        }
    }
}
