package import MartletBasics
package import MartletCluster
package import MartletModel
package import MartletReactor
import MartletWire

/// The lines of the log that operators read, one front end a subsystem.
package struct BrokerLog: Sendable {
    package let broker: Logger
    package let network: Logger
    package let requests: Logger

    package init(_ sink: any LogSink) {
        broker = Logger("broker", to: sink)
        network = Logger("network", to: sink)
        requests = Logger("requests", to: sink)
    }
}

/// What stops a broker from starting: a sentence that says what to do.
package struct StartFault: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// A listener, and the sockets that it has: one for each family of addresses.
private struct OpenListener {
    let listener: Listener
    var sockets: [any ListeningSocket] = []

    init(listener: Listener) { self.listener = listener }

    func close() { for socket in sockets { socket.close() } }
    func pause(for delay: Interval) { for socket in sockets { socket.pause(for: delay) } }
}

/// A broker: its listeners and connections, over the replicas and the cluster that `ClusterMember` keeps.
package final class Broker: @unchecked Sendable {
    private static let coldReadThreads = 4
    private static let coldReadLimit = 256
    private static let sessionSweepInterval = Interval.seconds(30)
    /// Before connections of a listener that was taken away are closed.
    private static let farewell = Interval.seconds(1)
    /// How soon a place is looked for again when all are taken.
    private static let fullPause = Interval.milliseconds(50)
    /// Connections kept waiting until the broker serves, and as many for a rate of connections; more are closed.
    private static let earlyLimit = 1024

    /// As it was given at the start. What is dynamic is asked of `cluster.running`.
    package let config: BrokerConfig
    package let host: any Host
    package let cluster: ClusterMember
    let log: BrokerLog
    let clock: any Clock
    /// What clients can make this process hold.
    package let memoryBounds: MemoryBounds
    let requestMemory: RequestMemory
    package let fetchMemory: FetchMemory
    let fetchSessions: FetchSessionCache
    package let groups: GroupCoordinator
    package let transactions: TransactionCoordinator
    package let loggers: Loggers
    let connections: Connections
    let coldReads: any Lane
    let codec: CodecLane
    let keptMetadata = KeptMetadata()
    package let quotaMeters: QuotaMeters
    private var connectionRates: ConnectionRates
    /// Connections that are kept waiting for a rate.
    private var waitingForRates = 0
    private let shared: [ConnectionLoop]
    private var opened: [OpenListener] = []
    private var nextLoop = 0
    private var isOpen = false
    private var isStopped = false
    private var early: [(socket: any StreamSocket, listener: Listener)] = []
    /// One a listening socket at most: it pauses.
    private var waitingForPlace: [(socket: any StreamSocket, listener: Listener)] = []

    var metadata: MetadataStore { cluster.metadata }
    var topics: LocalTopics { cluster.topics }

    package init(host: any Host, config: BrokerConfig, cluster: ClusterMember, sink: any LogSink, memoryBytes: Int64) {
        self.host = host
        self.config = config
        self.cluster = cluster
        log = BrokerLog(sink)
        clock = host.clock
        loggers = Loggers(config.logLevels)
        let bounds = MemoryBounds(config, loops: host.loops.count, memoryBytes: memoryBytes)
        memoryBounds = bounds
        requestMemory = RequestMemory(limit: bounds.requestLimit)
        let seed = host.randomSeed()
        fetchMemory = FetchMemory(limit: bounds.fetches)
        fetchSessions = FetchSessionCache(slots: Int(config.fetchSessionLimit), memory: fetchMemory, seed: seed)
        groups = GroupCoordinator(host: host, cluster: cluster, config: config, bytesLimit: bounds.groups, sink: sink)
        transactions = TransactionCoordinator(
            host: host, cluster: cluster, groups: groups, config: config, bytesLimit: bounds.transactions, sink: sink)
        connections = Connections(running: cluster.running, log: log.network)
        coldReads = host.makeLane("cold-reads", threads: Self.coldReadThreads, limit: Self.coldReadLimit)
        codec = CodecLane(host, batchBytesLimit: bounds.batch)
        let memory = requestMemory
        let loops = host.loops.count
        shared = host.loops.enumerated().map { index, loop in
            ConnectionLoop(
                loop, index: index, memory: memory, batchBytesLimit: bounds.batch, answerBytesLimit: bounds.answers / loops)
        }
        let windows = RateShape(
            windows: config.settings.int64("quota.window.num"), seconds: config.settings.int64("quota.window.size.seconds"))
        let mutations = RateShape(
            windows: config.settings.int64("controller.quota.window.num"),
            seconds: config.settings.int64("controller.quota.window.size.seconds"))
        quotaMeters = QuotaMeters(.init(requests: windows, mutations: mutations), loops: loops)
        connectionRates = ConnectionRates(windows)
        for loop in shared { loop.connections = connections }
    }

    package var connectionsCount: Int { connections.count }
    /// What the requests of one loop came to. On that loop.
    func requestCounts(ofLoop index: Int) -> RequestCounts {
        precondition(shared[index].loop.isCurrent, "a loop's counts are read on it")
        return shared[index].counts
    }
    /// The most bytes that wait to be sent on one connection.
    package var largestOutbox: Int { connections.largestOutbox }
    package var requestBytesInUse: Int { requestMemory.inUse }
    /// What waits to be sent. For simulated worlds, where one thread has all the loops.
    package var outboxBytes: Int { shared.reduce(0) { $0 + $1.counts.outboxBytes } }
    /// Of refused batches that are awaited. For a world that stands still.
    package var refusedSequencesCount: Int { shared.reduce(0) { $0 + $1.refusedSequencesCount } }

    // MARK: Listening

    /// Opens the listeners. On the first loop.
    package func listen() throws(StartFault) {
        precondition(host.loops[0].isCurrent, "listeners belong to the first loop")
        for listener in config.listeners { opened.append(try open(listener)) }
        cluster.openListeners = { [weak self] in self?.openMissing($0) }
        cluster.followListeners = { [weak self] in self?.follow($0) ?? [] }
        cluster.onQuotas = { [weak self] in self?.follow($0) }
        for loop in host.loops { connections.watch(loop) }
        sweepSessions()
        groups.start()
        transactions.start()
    }

    /// The addresses that the listeners really have, for those that were given port 0.
    package var boundPorts: [(listener: String, address: SocketAddress)] {
        opened.flatMap { listener in listener.sockets.map { (listener.listener.name, $0.address) } }
    }

    /// Where clients are told to connect: `advertised.listeners`, and the ports that were bound where it says 0.
    package var advertisedEndpoints: [BrokerEndpoint] { endpoints(cluster.running.current) }

    private func endpoints(_ config: BrokerConfig) -> [BrokerEndpoint] {
        config.advertisedListeners.map { listener in
            let bound = boundPorts.first { $0.listener == listener.name }
            let port = listener.port == 0 ? bound?.address.port ?? 0 : listener.port
            return BrokerEndpoint(
                listener: listener.name, host: listener.host.isEmpty ? host.network.localName : listener.host, port: Int32(port))
        }
    }

    private func open(_ listener: Listener) throws(StartFault) -> OpenListener {
        let options = listenOptions
        var open = OpenListener(listener: listener)
        for address in try addresses(of: listener) {
            do throws(SystemError) {
                open.sockets.append(
                    try host.network.listen(on: address, options: options, loop: host.loops[0]) { [weak self] socket in
                        self?.accepted(socket, listener)
                    })
            } catch {
                open.close()
                throw StartFault(Self.sentence(for: error, listener))
            }
        }
        return open
    }

    /// Opens what these settings add: all of it, or why not. Where a listener that goes has the port, it is waited for.
    private func openMissing(_ config: BrokerConfig) -> String? {
        var added: [OpenListener] = []
        for listener in config.listeners where !opened.contains(where: { $0.listener == listener }) {
            guard !opened.contains(where: { $0.listener.port == listener.port && listener.port != 0 }) else { continue }
            do throws(StartFault) { added.append(try open(listener)) } catch {
                for other in added { other.close() }
                return error.description
            }
        }
        opened += added
        return nil
    }

    /// Listens where these settings say, and nowhere else. Connections that came by a listener that goes have a moment
    /// for the answers that are under way.
    private func follow(_ config: BrokerConfig) -> [BrokerEndpoint] {
        guard !isStopped else { return endpoints(config) }
        let gone = opened.filter { !config.listeners.contains($0.listener) }
        opened.removeAll { !config.listeners.contains($0.listener) }
        for listener in gone {
            listener.close()
            log.network.info("a listener was closed", ("listener", listener.listener.description))
        }
        if !gone.isEmpty {
            let closed = Set(gone.map(\.listener))
            for loop in host.loops { connections.closeLater(on: loop, after: Self.farewell) { closed.contains($0) } }
        }
        for listener in config.listeners where !opened.contains(where: { $0.listener == listener }) {
            do throws(StartFault) { opened.append(try open(listener)) } catch {
                log.network.error("a listener cannot be opened", ("reason", error.description))
            }
        }
        return endpoints(config)
    }

    /// From now on clients are served; who has connected before was kept waiting.
    package func open() {
        isOpen = true
        for (socket, listener) in early { accepted(socket, listener) }
        early.removeAll()
    }

    /// What the user asked for. Kafka's defaults (a backlog of 50, buffers of 100 KiB) would only take from what the
    /// system does by itself.
    private var listenOptions: ListenOptions {
        func given<T>(_ name: String, _ value: T?) -> T? { config.settings.given(name) == nil ? nil : value }
        var options = ListenOptions(
            sendBufferBytes: given("socket.send.buffer.bytes", config.sendBufferBytes) ?? nil,
            receiveBufferBytes: given("socket.receive.buffer.bytes", config.receiveBufferBytes) ?? nil)
        if let backlog = given("socket.listen.backlog.size", config.listenBacklog) { options.backlog = backlog }
        return options
    }

    private func addresses(of listener: Listener) throws(StartFault) -> [SocketAddress] {
        if listener.host.isEmpty {
            return [SocketAddress(host: "0.0.0.0", port: listener.port), SocketAddress(host: "::", port: listener.port)]
        }
        do throws(SystemError) {
            let found = try host.network.resolve(listener.host)
            guard let first = found.first else { throw SystemError(.notFound, code: 0, operation: "resolve", subject: listener.host, reason: "no address") }
            return [SocketAddress(host: first, port: listener.port)]
        } catch {
            throw StartFault("The host of listener \(listener) cannot be resolved (\(error.reason)): correct it in listeners.")
        }
    }

    private static func sentence(for error: SystemError, _ listener: Listener) -> String {
        switch error.kind {
        case .addressInUse:
            "Port \(listener.port) is in use: stop the program that listens there, or choose another port in listeners (--set listeners=PLAINTEXT://127.0.0.1:\(listener.port == .max ? 9093 : listener.port + 1))."
        case .addressNotAvailable:
            "\(listener.host) is no address of this machine: correct listeners; advertised.listeners is where clients connect to."
        case .permissionDenied:
            "Port \(listener.port) may not be listened on by this user: choose one above 1023 in listeners."
        default: "Listener \(listener) cannot be opened: \(error)."
        }
    }

    private func accepted(_ socket: any StreamSocket, _ listener: Listener) {
        guard !isStopped else { return socket.close() }
        guard isOpen else { return early.count < Self.earlyLimit ? early.append((socket, listener)) : socket.close() }
        switch judge(socket, listener) {
        case .welcome: take(socket, listener)
        case .later(let wait):
            opened.first { $0.listener == listener }?.pause(for: wait)
            keepWaiting(socket, wait) { broker in broker.isStopped ? socket.close() : broker.take(socket, listener) }
        case .refused(let wait): keepWaiting(socket, wait) { _ in socket.close() }
        }
    }

    private func judge(_ socket: any StreamSocket, _ listener: Listener) -> ConnectionRates.Verdict {
        let settings = cluster.running.current.settings
        return connectionRates.judge(
            socket.peer.host, listener: listener.name, limit: settings.int32("max.connection.creation.rate"),
            listenerLimit: settings.connectionRate(ofListener: listener.name), cluster.quotas, now: clock.now)
    }

    /// What the rates of connections ask for. A socket that no loop watches costs a descriptor and nothing else.
    private func keepWaiting(_ socket: any StreamSocket, _ wait: Interval, then: @escaping (Broker) -> Void) {
        shared[0].throttled(.connections, wait)
        guard waitingForRates < Self.earlyLimit else { return socket.close() }
        waitingForRates += 1
        host.loops[0].schedule(after: wait) { [weak self] in
            guard let self else { return socket.close() }
            waitingForRates -= 1
            then(self)
        }
    }

    private func take(_ socket: any StreamSocket, _ listener: Listener) {
        let id: UInt64
        switch connections.admit(socket.peer, by: listener.name) {
        case .admitted(let given): id = given
        case .refused: return socket.close()
        case .full: return waitForPlace(socket, listener, pausing: opened)
        case .listenerFull: return waitForPlace(socket, listener, pausing: opened.filter { $0.listener == listener })
        }
        let home = shared[nextLoop]
        nextLoop = (nextLoop + 1) % shared.count
        let connection = Connection(id: id, socket: socket, listener: listener, shared: home, broker: self)
        connections.opened(connection)
        if home.loop.isCurrent { connection.start() } else { home.loop.execute { connection.start() } }
    }

    /// No place is free (`max.connections`): as in Kafka nobody is turned away, but accepted when one is. The others wait
    /// with the system.
    private func waitForPlace(_ socket: any StreamSocket, _ listener: Listener, pausing full: [OpenListener]) {
        waitingForPlace.append((socket, listener))
        for open in full { open.pause(for: Self.fullPause) }
        guard waitingForPlace.count == 1 else { return }
        host.loops[0].schedule(after: Self.fullPause) { [weak self] in
            guard let self else { return }
            let waiting = waitingForPlace
            waitingForPlace.removeAll()
            for (socket, listener) in waiting { take(socket, listener) }
        }
    }

    // MARK: Requests

    func dispatch(_ request: Request) throws {
        guard let handle = ServedApis.handler(of: request.header.apiKey, version: request.version) else {
            throw RequestFault("API \(request.header.apiKey) version \(request.version) is not served")
        }
        try handle(request)
    }

    /// What requests are held to from now on, on every loop.
    private func follow(_ quotas: ClientQuotas) {
        let held = quotas.concernsRequests ? quotas : nil
        for one in shared { one.loop.execute { one.quotas = held } }
    }

    private func sweepSessions() {
        host.loops[0].schedule(after: Self.sessionSweepInterval) { [weak self] in
            guard let self, !isStopped else { return }
            fetchSessions.endOldWatches(now: clock.now)
            sweepSessions()
        }
    }

    // MARK: The end

    /// Stops listening and closes the connections; the cluster member is closed by who made it.
    package func stop() async {
        isStopped = true
        groups.stop()
        transactions.stop()
        for (socket, _) in early + waitingForPlace { socket.close() }
        early.removeAll()
        waitingForPlace.removeAll()
        for listener in opened { listener.close() }
        opened.removeAll()
        for loop in host.loops {
            if loop.isCurrent {
                connections.closeAll(on: loop)
            } else {
                await withUnsafeContinuation { (done: UnsafeContinuation<Void, Never>) in
                    loop.execute {
                        self.connections.closeAll(on: loop)
                        done.resume()
                    }
                }
            }
        }
    }
}
