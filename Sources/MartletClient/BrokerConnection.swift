import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// One connection to a broker. Requests may follow one another without waiting; their answers come in the same order, as
/// Kafka promises.
///
/// Confined to its loop. A connection that failed once stays failed: whoever asks makes another.
///
///     connecting ──> negotiating (ApiVersions, again in an older version where the broker says so) ──> open
///         └───────────────┴──────────────── any fault, a late answer, close() ──────────────────────> ended
final class BrokerConnection: @unchecked Sendable {
    /// A response larger than this is not believed.
    static let frameBytesLimit = 256 << 20
    /// Requests without an answer, on one connection.
    static let inFlightLimit = 64
    /// Bytes that the system did not take yet.
    static let unsentBytesLimit = 64 << 20

    private struct Waiting {
        var correlationID: Int32
        var timer: TimerToken
        var take: (Result<ResponseFrame, ClientError>) -> Void
    }

    let endpoint: BrokerEndpoint
    let loop: any EventLoop
    private let clientID: String
    private(set) var offered = OfferedVersions()
    private var socket: (any StreamSocket)?
    private var failure: ClientError?
    private var outgoing = ByteBuffer()
    private var sentBytes = 0
    private var sizeBytes: [UInt8] = []
    private var frame: ResponseFrame?
    private var waiting = RingQueue<Waiting>()
    private var nextCorrelationID: Int32 = 0
    private var drainWaiters: [UnsafeContinuation<Void, Never>] = []

    init(_ endpoint: BrokerEndpoint, loop: any EventLoop, clientID: String) {
        self.endpoint = endpoint
        self.loop = loop
        self.clientID = clientID
    }

    var name: String { endpoint.description }
    var isOpen: Bool { socket != nil && failure == nil }

    // MARK: Making it

    /// Connects to one of the addresses, the first that answers, and asks which versions there are.
    func open(
        _ addresses: [String], network: any Network, connectWithin: Interval, answerWithin: Interval
    ) async throws(ClientError) {
        precondition(loop.isCurrent && socket == nil && failure == nil, "a connection is opened once, on its loop")
        var reasons: [String] = []
        for address in addresses {
            let target = SocketAddress(host: address, port: endpoint.port)
            let result: Result<any StreamSocket, SystemError> = await withUnsafeContinuation { continuation in
                ConnectAttempt(continuation).start(target, network: network, loop: loop, within: connectWithin)
            }
            switch result {
            case .success(let made):
                socket = made
                made.attach(to: loop) { [weak self] readiness in self?.ready(readiness) }
                made.watch(.readable)
                return try await negotiate(within: answerWithin)
            case .failure(let error): reasons.append("\(target): \(error.reason)")
            }
        }
        let error = ClientError.unreachable(reasons)
        failure = error
        throw error
    }

    private func negotiate(within limit: Interval) async throws(ClientError) {
        var version = OfferedVersions.firstAsked
        while true {
            var request = ApiVersionsRequest()
            if version >= 3 {
                request.clientSoftwareName = "martlet"
                request.clientSoftwareVersion = "1"
            }
            let frame = try await exchange(request, version: version, within: limit)
            let negotiation: Result<OfferedVersions.Negotiation, ErrorCode>
            do throws(DecodingFault) {
                negotiation = try OfferedVersions.negotiation(frame.bytes, asked: version)
            } catch {
                throw end(malformed("ApiVersions", "\(error)"))
            }
            switch negotiation {
            case .success(.agreed(let offered)):
                self.offered = offered
                return
            case .success(.askAgain(let older)):
                precondition(older < version, "each attempt is older than the last, so that they end")
                version = older
            case .failure(let code): throw end(.refused(what: "ApiVersions", code, message: nil))
            }
        }
    }

    func close() { end(.connectionLost(broker: name, reason: "it was closed here", isSafe: false)) }

    // MARK: Asking

    /// The highest version of an API that both sides have.
    func version(of api: ApiKey, atMost limit: Int16) throws(ClientError) -> Int16 {
        guard let version = offered.version(of: api, atMost: limit) else {
            throw .unsupported(what: api.title, broker: name, reason: offered.reasonAgainst(api, atMost: limit))
        }
        return version
    }

    /// The version of the API that is our own, which only brokers of this kind have.
    func versionOfExplain() throws(ClientError) -> Int16 {
        guard offered.explains else {
            throw .unsupported(what: "Explain", broker: name, reason: "only Martlet can say what is waited for")
        }
        return ExplainApi.versions.upperBound
    }

    /// Sends a request and waits for its answer. An answer that does not come in time ends the connection, for those
    /// behind it could not come either.
    func ask<R: WireRequest>(
        _ request: R, version: Int16, within limit: Interval
    ) async throws(ClientError) -> Answer<R.Response> {
        let frame = try await exchange(request, version: version, within: limit)
        let decoded: Result<Answer<R.Response>, ClientError> = decode(R.self, frame, version: version)
        if case .failure(let error) = decoded { end(error) }
        return try decoded.get()
    }

    private func decode<R: WireRequest>(
        _: R.Type, _ frame: ResponseFrame, version: Int16
    ) -> Result<Answer<R.Response>, ClientError> {
        let headerVersion = ApiKey(rawValue: R.apiKey)?.responseHeaderVersion(version) ?? 0
        var reader = ByteReader(frame.bytes)
        do throws(DecodingFault) {
            _ = try ResponseHeader.decode(from: &reader, version: headerVersion)
            let message = try R.Response.decode(from: &reader, version: version)
            return .success(Answer(message, version: version, frame: frame, broker: name))
        } catch {
            return .failure(malformed(apiName(R.self), "\(error)"))
        }
    }

    /// Sends a request that has no answer, Produce with acks=0, and waits until the system has taken it.
    func tell<R: WireRequest>(_ request: R, version: Int16) async throws(ClientError) {
        _ = try enqueue(request, version: version)
        flush()
        if isOpen, sentBytes < outgoing.count { await withUnsafeContinuation { drainWaiters.append($0) } }
        if let failure { throw failure }
    }

    private func exchange<R: WireRequest>(
        _ request: R, version: Int16, within limit: Interval
    ) async throws(ClientError) -> ResponseFrame {
        let correlationID = try enqueue(request, version: version)
        let what = apiName(R.self)
        let result: Result<ResponseFrame, ClientError> = await withUnsafeContinuation { continuation in
            let timer = loop.schedule(after: limit) { [weak self] in
                guard let self else { return }
                end(.timedOut(what: what, broker: name, afterMs: limit.milliseconds))
            }
            waiting.append(
                Waiting(correlationID: correlationID, timer: timer) { continuation.resume(returning: $0) })
            flush()
        }
        return try result.get()
    }

    private func enqueue<R: WireRequest>(_ request: R, version: Int16) throws(ClientError) -> Int32 {
        precondition(loop.isCurrent, "a connection is asked on its loop")
        guard socket != nil else {
            throw failure ?? .connectionLost(broker: name, reason: "it was not made", isSafe: true)
        }
        guard waiting.count < Self.inFlightLimit, outgoing.count - sentBytes < Self.unsentBytesLimit else {
            throw .invalid("too much is under way to \(name) already")
        }
        nextCorrelationID = nextCorrelationID == .max ? 0 : nextCorrelationID + 1
        let start = outgoing.count
        outgoing.int32(0)
        let header = RequestHeader(
            apiKey: R.apiKey, apiVersion: version, correlationID: nextCorrelationID, clientID: clientID)
        do throws(EncodingFault) {
            try header.encode(into: &outgoing)
            try request.encode(into: &outgoing, version: version)
        } catch {
            outgoing.truncate(to: start)
            throw .unsupported(what: apiName(R.self), broker: name, reason: "\(error)")
        }
        outgoing.patch(Int32(outgoing.count - start - 4), at: start)
        return nextCorrelationID
    }

    // MARK: Bytes

    private func ready(_ readiness: Readiness) {
        if readiness.contains(.readable) || readiness.contains(.hungUp) { receive() }
        if readiness.contains(.writable) { flush() }
    }

    private func flush() {
        while let socket, sentBytes < outgoing.count {
            switch socket.send(UnsafeRawBufferPointer(rebasing: outgoing.bytes[sentBytes...]), more: false) {
            case .moved(let count): sentBytes += count
            case .wouldBlock: return socket.watch([.readable, .writable])
            case .ended:
                end(lost("the broker closed it"))
                return
            }
        }
        guard let socket else { return }
        outgoing.reset()
        sentBytes = 0
        socket.watch(.readable)
        wakeDrained()
    }

    private func wakeDrained() {
        let resumed = drainWaiters
        drainWaiters = []
        for one in resumed { one.resume() }
    }

    private func receive() {
        while let socket {
            let transfer: Transfer
            if let frame {
                transfer = socket.receive(into: frame.room, UnsafeMutableRawBufferPointer(start: nil, count: 0))
                if case .moved(let count) = transfer { frame.filled(count) }
            } else {
                transfer = receiveSize(socket)
            }
            switch transfer {
            case .moved: break
            case .wouldBlock: return
            case .ended:
                end(lost(waiting.isEmpty ? "the broker closed it" : "the broker closed it without an answer"))
                return
            }
            if let frame, frame.isWhole {
                self.frame = nil
                took(frame)
            }
        }
    }

    private func receiveSize(_ socket: any StreamSocket) -> Transfer {
        withUnsafeTemporaryAllocation(byteCount: 4 - sizeBytes.count, alignment: 1) { buffer in
            let transfer = socket.receive(into: buffer, UnsafeMutableRawBufferPointer(start: nil, count: 0))
            guard case .moved(let count) = transfer else { return transfer }
            sizeBytes.append(contentsOf: buffer[..<count])
            guard sizeBytes.count == 4 else { return transfer }
            let size = Int(Int32(bitPattern: sizeBytes.reduce(0) { $0 << 8 | UInt32($1) }))
            sizeBytes.removeAll(keepingCapacity: true)
            guard size >= 4, size <= Self.frameBytesLimit else {
                end(malformed("a request", "a response of \(size) bytes: is there no Kafka broker, or one that speaks TLS?"))
                return transfer
            }
            frame = ResponseFrame(size: size)
            return transfer
        }
    }

    private func took(_ frame: ResponseFrame) {
        let correlationID = Int32(bigEndian: frame.bytes.loadUnaligned(as: Int32.self))
        guard let one = waiting.first, one.correlationID == correlationID else {
            end(malformed("a request", "the response belongs to another request"))
            return
        }
        waiting.popFirst()
        loop.cancel(one.timer)
        one.take(.success(frame))
    }

    // MARK: The end

    @discardableResult
    private func end(_ error: ClientError) -> ClientError {
        guard failure == nil else { return error }
        failure = error
        socket?.close()
        socket = nil
        frame = nil
        outgoing.reset()
        sentBytes = 0
        var left = waiting
        waiting = RingQueue()
        while let one = left.popFirst() {
            loop.cancel(one.timer)
            one.take(.failure(error))
        }
        wakeDrained()
        return error
    }

    private func lost(_ reason: String) -> ClientError {
        .connectionLost(broker: name, reason: reason, isSafe: false)
    }

    private func malformed(_ what: String, _ reason: String) -> ClientError {
        .malformedAnswer(what: what, broker: name, reason: reason)
    }
}

/// An attempt to connect, which ends in time: a socket that comes later is closed.
private final class ConnectAttempt: @unchecked Sendable {
    private var continuation: UnsafeContinuation<Result<any StreamSocket, SystemError>, Never>?
    private var timer: TimerToken?

    init(_ continuation: UnsafeContinuation<Result<any StreamSocket, SystemError>, Never>) {
        self.continuation = continuation
    }

    func start(_ target: SocketAddress, network: any Network, loop: any EventLoop, within limit: Interval) {
        timer = loop.schedule(after: limit) { [self] in
            finish(
                .failure(
                    SystemError(
                        .connectionLost, code: 0, operation: "connect", subject: target.description,
                        reason: "no answer within \(limit.milliseconds) ms")), loop)
        }
        network.connect(to: target, loop: loop) { [self] result in finish(result, loop) }
    }

    private func finish(_ result: Result<any StreamSocket, SystemError>, _ loop: any EventLoop) {
        guard let continuation else {
            if case .success(let late) = result { late.close() }
            return
        }
        self.continuation = nil
        if let timer { loop.cancel(timer) }
        continuation.resume(returning: result)
    }
}

/// What Kafka calls the API of a request: `Fetch`.
func apiName<R: WireRequest>(_: R.Type) -> String {
    let name = String(describing: R.self)
    return name.hasSuffix("Request") ? String(name.dropLast(7)) : name
}
