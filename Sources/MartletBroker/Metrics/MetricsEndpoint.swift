package import MartletBasics
package import MartletModel
package import MartletReactor

/// The port on which a broker tells how it is: `/metrics` for Prometheus, `/health/live` and `/health/ready` for whoever
/// runs it. HTTP/1.1, GET and HEAD, on the first loop; there is no other HTTP in the broker, and nothing to configure about
/// it.
///
/// Confined to its loop.
package final class MetricsEndpoint: @unchecked Sendable {
    /// More are closed at once: one Prometheus needs one.
    package static let connectionLimit = 64
    private static let paceInterval = Interval.seconds(1)

    private let host: any Host
    private let loop: any EventLoop
    private let listener: MetricsListener
    private let log: Logger
    private let gathering: MetricsGathering
    /// A sentence that says why the broker does not serve; nil when it does.
    private let unreadiness: () -> String?

    private var sockets: [any ListeningSocket] = []
    private var connections: [HTTPConnection] = []
    private var isClosed = false

    package init(
        host: any Host, listener: MetricsListener, log: Logger, gathering: MetricsGathering,
        unreadiness: @escaping () -> String?
    ) {
        self.host = host
        loop = host.loops[0]
        self.listener = listener
        self.log = log
        self.gathering = gathering
        self.unreadiness = unreadiness
    }

    /// The addresses that are listened on.
    package var addresses: [SocketAddress] { sockets.map(\.address) }

    // MARK: Listening

    package func listen() throws(StartFault) {
        precondition(loop.isCurrent, "the endpoint belongs to the first loop")
        do throws(SystemError) {
            for address in try resolved() {
                let socket = try host.network.listen(on: address, loop: loop) { [weak self] socket in
                    guard let self else { return socket.close() }
                    accepted(socket)
                }
                sockets.append(socket)
            }
        } catch {
            stop()
            throw StartFault(sentence(for: error))
        }
        checkPace()
    }

    private func resolved() throws(SystemError) -> [SocketAddress] {
        guard !listener.host.isEmpty else {
            return [SocketAddress(host: "0.0.0.0", port: listener.port), SocketAddress(host: "::", port: listener.port)]
        }
        guard let first = try host.network.resolve(listener.host).first else {
            throw SystemError(.notFound, code: 0, operation: "resolve", subject: listener.host, reason: "no address")
        }
        return [SocketAddress(host: first, port: listener.port)]
    }

    private func sentence(for error: SystemError) -> String {
        switch error.kind {
        case .addressInUse:
            "Port \(listener.port) is in use, and metrics are to be told there: stop the program that listens there, or give "
                + "martlet.metrics.listener another port (empty for none)."
        case .addressNotAvailable:
            "\(listener.host) is no address of this machine: correct martlet.metrics.listener."
        case .permissionDenied:
            "Port \(listener.port) may not be listened on by this user: give martlet.metrics.listener one above 1023."
        default:
            "The metrics cannot be told on \(listener): \(error). Correct martlet.metrics.listener, or leave it empty."
        }
    }

    private func accepted(_ socket: any StreamSocket) {
        guard !isClosed, connections.count < Self.connectionLimit else {
            log.debug("a client of the metrics was refused", ("client", socket.peer.description))
            return socket.close()
        }
        let connection = HTTPConnection(
            socket, loop: loop,
            answer: { [weak self] head, done in
                guard let self else { return done(HTTPAnswer(.serviceUnavailable, "The broker is stopping.")) }
                answer(head, done)
            },
            closed: { [weak self] connection in self?.connections.removeAll { $0 === connection } })
        connections.append(connection)
        connection.start()
    }

    private func checkPace() {
        loop.schedule(after: Self.paceInterval) { [weak self] in
            guard let self, !isClosed else { return }
            for connection in connections { connection.checkPace(now: loop.clock.now) }
            checkPace()
        }
    }

    // MARK: Answers

    private func answer(_ head: HTTPRequestHead, _ done: @escaping @Sendable (HTTPAnswer) -> Void) {
        guard head.method != .other else { return done(HTTPAnswer(.methodNotAllowed, "Only GET and HEAD are answered here.")) }
        switch head.path {
        case "/metrics":
            gathering.page { page in
                guard let page else { return done(HTTPAnswer(.serviceUnavailable, "The broker is stopping, or too busy.")) }
                done(HTTPAnswer(.ok, contentType: MetricsText.contentType, page))
            }
        case "/health/live": done(HTTPAnswer(.ok, "live"))
        case "/health/ready":
            done(unreadiness().map { HTTPAnswer(.serviceUnavailable, $0) } ?? HTTPAnswer(.ok, "ready"))
        case "/": done(HTTPAnswer(.ok, "Martlet tells of itself at /metrics, /health/live and /health/ready."))
        default: done(HTTPAnswer(.notFound, "There is nothing here: /metrics, /health/live and /health/ready are what is."))
        }
    }

    // MARK: The end

    package func stop() {
        isClosed = true
        for socket in sockets { socket.close() }
        sockets = []
        for connection in connections { connection.close() }
        connections = []
    }
}
