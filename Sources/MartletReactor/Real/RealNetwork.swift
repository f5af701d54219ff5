import CMartlet
import CUV
import Glibc
package import MartletBasics

/// TCP over IPv4 and IPv6.
package final class RealNetwork: Network {
    /// A listener takes so many connections a turn, so that a storm of them leaves the loop to those that are there.
    static let acceptsPerTurnLimit = 64
    /// How long a listener waits when the process is short of descriptors or memory.
    static let shortagePause = Interval.milliseconds(100)
    /// A connect that nobody answers is given up after this; the system alone would take minutes.
    static let connectTimeLimit = Interval.seconds(30)
    static let resolvedAddressesLimit = 32

    private let log: Logger

    package var localName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    package init(log: any LogSink) { self.log = Logger("network", to: log) }

    package func resolve(_ host: String) throws(SystemError) -> [String] {
        let size = Int(MARTLET_HOST_SIZE), limit = Self.resolvedAddressesLimit
        var reason = [CChar](repeating: 0, count: 128)
        var hosts = [CChar](repeating: 0, count: size * limit)
        let count = Int(martlet_resolve(host, &hosts, Int32(limit), &reason, reason.count))
        guard count >= 0 else {
            var error = SystemError(errno: Int32(count), "getaddrinfo", host)
            error.reason = reason.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            throw error
        }
        return hosts.withUnsafeBufferPointer { hosts in
            var names: [String] = []
            for index in 0..<count {
                let name = String(cString: hosts.baseAddress! + index * size)
                if !names.contains(name) { names.append(name) }
            }
            return names
        }
    }

    package func listen(
        on address: SocketAddress, options: ListenOptions, loop: any EventLoop,
        accepted: @escaping @Sendable (any StreamSocket) -> Void
    ) throws(SystemError) -> any ListeningSocket {
        guard let loop = loop as? UVEventLoop else { preconditionFailure("a real socket lives on a real loop") }
        let descriptor = martlet_listen(
            address.host, address.port, options.backlog, options.sendBufferBytes ?? 0, options.receiveBufferBytes ?? 0)
        guard descriptor >= 0 else {
            if descriptor == -EINVAL { throw SystemError(noAddress: address, "listen") }
            throw SystemError(errno: descriptor, "listen", address.description)
        }
        let listener = RealListener(descriptor: descriptor, log: log, accepted: accepted)
        if loop.isCurrent {
            listener.start(on: loop)
        } else {
            loop.execute { listener.start(on: loop) }
        }
        return listener
    }

    package func connect(
        to address: SocketAddress, loop: any EventLoop,
        completion: @escaping @Sendable (Result<any StreamSocket, SystemError>) -> Void
    ) {
        guard let loop = loop as? UVEventLoop else { preconditionFailure("a real socket lives on a real loop") }
        // always in a later turn: the caller has returned before it hears
        loop.execute {
            var connected: Int32 = 0
            let descriptor = martlet_connect(address.host, address.port, &connected)
            guard descriptor >= 0 else {
                if descriptor == -EINVAL { return completion(.failure(SystemError(noAddress: address, "connect"))) }
                return completion(.failure(SystemError(errno: descriptor, "connect", address.description)))
            }
            if connected != 0 {
                return completion(.success(RealSocket(descriptor: descriptor, peer: address)))
            }
            PendingConnect(descriptor: descriptor, address: address, completion: completion).start(on: loop)
        }
    }
}

extension SystemError {
    init(noAddress address: SocketAddress, _ operation: StaticString) {
        self.init(
            .addressNotAvailable, code: EINVAL, operation: operation, subject: address.description,
            reason: "the host is not a literal IPv4 or IPv6 address")
    }
}

/// A listening socket. On its loop, but for `address`.
final class RealListener: PollHandle, ListeningSocket, @unchecked Sendable {
    let address: SocketAddress
    private let log: Logger
    private let accepted: @Sendable (any StreamSocket) -> Void
    private var isClosed = false
    private var isShort = false
    private var pauseTimer: TimerToken?

    init(descriptor: Int32, log: Logger, accepted: @escaping @Sendable (any StreamSocket) -> Void) {
        address = SocketAddress(localOf: descriptor)
        self.log = log
        self.accepted = accepted
        super.init(descriptor: descriptor)
    }

    deinit {
        if !isClosed { _ = martlet_close(descriptor) }
    }

    func start(on loop: UVEventLoop) {
        guard !isClosed else { return }
        let code = startWatching(on: loop)
        precondition(code == 0, "a listening socket can be polled")
        arm(Int32(UV_READABLE.rawValue))
    }

    override func became(_ events: Int32, failed: Bool) {
        for _ in 0..<RealNetwork.acceptsPerTurnLimit {
            // what is accepted may pause or close this
            guard armed != 0 || failed, !isClosed, pauseTimer == nil else { return }
            var descriptor: Int32 = 0
            let peer = SocketAddress.filled { host, port in descriptor = martlet_accept(self.descriptor, host, port) }
            if descriptor >= 0 {
                isShort = false
                accepted(RealSocket(descriptor: descriptor, peer: peer))
                continue
            }
            switch -descriptor {
            case EAGAIN: break
            // the connection, not the listener, has failed: on to the next
            case ECONNABORTED, EPROTO, EPERM, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH, ENOPROTOOPT, EOPNOTSUPP:
                continue
            default: fallShort(descriptor)
            }
            break
        }
        if failed, !isClosed, pauseTimer == nil { arm(Int32(UV_READABLE.rawValue)) }
    }

    /// Connections wait in the system's queue meanwhile. Said once until one can be accepted again.
    private func fallShort(_ code: Int32) {
        if !isShort {
            let error = SystemError(errno: code, "accept", address.description)
            log.error(
                "cannot accept connections, tries again: raise the limit of open descriptors or lower max.connections",
                ("listener", address.description), ("reason", error.reason),
                ("pause_ms", String(RealNetwork.shortagePause.milliseconds)))
        }
        isShort = true
        pause(for: RealNetwork.shortagePause)
    }

    func pause(for delay: Interval) {
        guard !isClosed, let loop else { return }
        precondition(loop.isCurrent, "a listener is paused on its loop")
        arm(0)
        if let pauseTimer { loop.cancel(pauseTimer) }
        pauseTimer = loop.schedule(after: delay) { [weak self] in
            guard let self, !isClosed else { return }
            pauseTimer = nil
            arm(Int32(UV_READABLE.rawValue))
        }
    }

    func close() {
        guard !isClosed else { return }
        if isWatched { precondition(loop!.isCurrent, "a listener is closed on its loop") }
        if let pauseTimer { loop?.cancel(pauseTimer) }
        loopEnds()
    }

    override func loopEnds() {
        isClosed = true
        stopWatching()
        _ = martlet_close(descriptor)
    }
}

/// A connection that is being made.
private final class PendingConnect: PollHandle, @unchecked Sendable {
    private let address: SocketAddress
    private var completion: (@Sendable (Result<any StreamSocket, SystemError>) -> Void)?
    private var timeOut: TimerToken?

    init(
        descriptor: Int32, address: SocketAddress,
        completion: @escaping @Sendable (Result<any StreamSocket, SystemError>) -> Void
    ) {
        self.address = address
        self.completion = completion
        super.init(descriptor: descriptor)
    }

    func start(on loop: UVEventLoop) {
        let code = startWatching(on: loop)
        precondition(code == 0, "a connecting socket can be polled")
        arm(Int32(UV_WRITABLE.rawValue))
        timeOut = loop.schedule(after: RealNetwork.connectTimeLimit) { [weak self] in self?.complete(-ETIMEDOUT) }
    }

    override func became(_ events: Int32, failed: Bool) {
        let code = martlet_connect_result(descriptor)
        // an error that has been taken by somebody else is still an error
        complete(code == 0 && failed ? -ECONNABORTED : code)
    }

    override func loopEnds() { complete(-ECANCELED) }

    private func complete(_ code: Int32) {
        guard let completion else { return }
        self.completion = nil
        if let timeOut { loop?.cancel(timeOut) }
        stopWatching()
        if code == 0 {
            completion(.success(RealSocket(descriptor: descriptor, peer: address)))
        } else {
            _ = martlet_close(descriptor)
            completion(.failure(SystemError(errno: code, "connect", address.description)))
        }
    }
}
