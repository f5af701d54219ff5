package import MartletBasics
package import MartletModel
package import MartletReactor
package import MartletWire

/// A client of a Kafka cluster: it finds the broker that a request is for, speaks the version that both have, and tries
/// again what may succeed later.
///
///     let client = Client(host: host, settings: ClientSettings(bootstrap: [endpoint]))
///     let topics = try await client.topics(named: nil)
///
/// Confined to the loop it was made with; tasks come there by `loop.spawn`. Everything ends in bounded time
/// (`ClientSettings.operationTimeLimit`). `close()` ends what is under way.
package final class Client: @unchecked Sendable {
    /// Whom a request is for.
    package enum Route: Sendable, Equatable {
        case any
        case controller
        case broker(BrokerID)
        /// The broker that looks after a group.
        case coordinator(of: String)
        /// The broker that looks after a transactional id.
        case transactionCoordinator(of: String)
    }

    /// Names that wait for the system's resolver.
    private static let resolutionsLimit = 64

    package let settings: ClientSettings
    package let loop: any EventLoop
    /// What metadata last said, topics that were asked for.
    package private(set) var cluster = ClusterView()
    private let host: any Host
    private var resolver: (any Lane)?
    private var connections: [BrokerEndpoint: BrokerConnection] = [:]
    /// Who waits for a connection that another task is making.
    private var opening: [BrokerEndpoint: [UnsafeContinuation<Result<BrokerConnection, ClientError>, Never>]] = [:]
    /// By group.
    private var coordinatorEndpoints: [String: BrokerEndpoint] = [:]
    /// By transactional id.
    private var transactionCoordinators: [String: BrokerEndpoint] = [:]
    private var isClosed = false

    package init(host: any Host, loop: any EventLoop, settings: ClientSettings) {
        precondition(!settings.bootstrap.isEmpty, "a client knows a broker to begin with")
        self.host = host
        self.loop = loop
        self.settings = settings
    }

    package var clock: any Clock { host.clock }

    /// Ends every connection; what waits for an answer gets an error.
    package func close() {
        isClosed = true
        for connection in connections.values.sorted(by: { $0.name < $1.name }) { connection.close() }
        connections = [:]
    }

    // MARK: Asking

    /// Asks the broker that the route leads to, in the highest version that both have.
    ///
    /// It is tried again while the operation's time lasts: when no connection could be made, when one was lost (only
    /// where `isRepeatable`, for it might have been carried out), and when the answer's code, as `judging` finds it, says
    /// that another broker is responsible or that it must wait. The last answer is returned as it is: what its codes
    /// mean, the caller knows. `within` is for requests that a broker may hold back.
    ///
    /// Where the broker was chosen for what it leads, `once`: the caller looks for the new leader before it asks again.
    package func ask<R: WireRequest>(
        _ route: Route, atMost limit: Int16 = .max, isRepeatable: Bool = true, once: Bool = false,
        within answerLimit: Interval? = nil, judging: (R.Response) -> ErrorCode = { _ in .none },
        _ make: (Int16) throws(ClientError) -> R
    ) async throws(ClientError) -> Answer<R.Response> {
        var patience = Patience(self)
        while true {
            let error: ClientError
            do throws(ClientError) {
                let connection = try await connection(for: route)
                let within = answerLimit ?? patience.answerLimit
                let answer: Answer<R.Response> = try await ask(connection, atMost: limit, within, make)
                let code = judging(answer.message)
                guard code.callsForAnotherTry, patience.isLeft else { return answer }
                error = .refused(what: apiName(R.self), code, message: nil)
            } catch let fault {
                let mayRepeat = isRepeatable || fault.isSafe
                guard fault.concernsConnection, mayRepeat, !once, !isFirstContact(fault), patience.isLeft else {
                    throw fault
                }
                error = fault
            }
            forget(route, after: error)
            await patience.wait()
        }
    }

    private func ask<R: WireRequest>(
        _ connection: BrokerConnection, atMost limit: Int16, _ within: Interval,
        _ make: (Int16) throws(ClientError) -> R
    ) async throws(ClientError) -> Answer<R.Response> {
        let version: Int16
        if let api = ApiKey(rawValue: R.apiKey) {
            version = try connection.version(of: api, atMost: limit)
        } else {
            version = try connection.versionOfExplain()
        }
        return try await connection.ask(try make(version), version: version, within: within)
    }

    /// Sends what is not answered, to a broker; it may be lost.
    func tell<R: WireRequest>(_ id: BrokerID, _ request: R, atMost limit: Int16) async throws(ClientError) {
        guard let api = ApiKey(rawValue: R.apiKey) else { preconditionFailure("every request's API has a key") }
        let connection = try await connection(for: .broker(id))
        try await connection.tell(request, version: try connection.version(of: api, atMost: limit))
    }

    /// Where nothing was ever reached, there is nothing to wait for: the address is wrong, or the broker is not there.
    private func isFirstContact(_ error: ClientError) -> Bool {
        if case .unreachable = error { cluster.brokers.isEmpty } else { false }
    }

    private func forget(_ route: Route, after error: ClientError) {
        switch route {
        case .any, .broker: break
        case .controller: cluster = cluster.withoutController
        case .coordinator(let group): coordinatorEndpoints[group] = nil
        case .transactionCoordinator(let id): transactionCoordinators[id] = nil
        }
    }

    // MARK: Routes

    private func connection(for route: Route) async throws(ClientError) -> BrokerConnection {
        switch route {
        case .any: return try await anyConnection()
        case .controller:
            if cluster.controllerID < 0 { try await refresh(topics: []) }
            // a cluster whose brokers pass such requests on need not name one
            guard let controller = cluster.broker(cluster.controllerID) else { return try await anyConnection() }
            return try await connection(to: controller.endpoint)
        case .broker(let id):
            if cluster.broker(id) == nil { try await refresh(topics: []) }
            guard let broker = cluster.broker(id) else {
                throw .unreachable(["broker \(id) is not in the cluster now"])
            }
            return try await connection(to: broker.endpoint)
        case .coordinator(let group):
            if let known = coordinatorEndpoints[group] { return try await connection(to: known) }
            let found = try await findCoordinator(of: group, .group)
            coordinatorEndpoints[group] = found
            return try await connection(to: found)
        case .transactionCoordinator(let id):
            if let known = transactionCoordinators[id] { return try await connection(to: known) }
            let found = try await findCoordinator(of: id, .transactionalID)
            transactionCoordinators[id] = found
            return try await connection(to: found)
        }
    }

    /// Whoever answers first: one that is connected, then the brokers that are known, then those given at the start.
    private func anyConnection() async throws(ClientError) -> BrokerConnection {
        var candidates = cluster.brokers.map(\.endpoint)
        candidates += settings.bootstrap.filter { !candidates.contains($0) }
        if let open = candidates.lazy.compactMap({ self.connections[$0] }).first(where: \.isOpen) { return open }
        var reasons: [String] = []
        for candidate in candidates {
            do throws(ClientError) {
                return try await connection(to: candidate)
            } catch {
                guard error.concernsConnection else { throw error }
                if case .unreachable(let each) = error { reasons += each } else { reasons.append("\(error)") }
            }
        }
        throw .unreachable(reasons)
    }

    private func connection(to endpoint: BrokerEndpoint) async throws(ClientError) -> BrokerConnection {
        precondition(loop.isCurrent, "a client is used on its loop")
        guard !isClosed else { throw .invalid("the client was closed") }
        if let known = connections[endpoint], known.isOpen { return known }
        if opening[endpoint] != nil {
            let result = await withUnsafeContinuation { opening[endpoint]?.append($0) }
            return try result.get()
        }
        opening[endpoint] = []
        let result = await open(endpoint)
        if case .success(let made) = result { connections[endpoint] = made }
        for waiting in opening.removeValue(forKey: endpoint) ?? [] { waiting.resume(returning: result) }
        return try result.get()
    }

    private func open(_ endpoint: BrokerEndpoint) async -> Result<BrokerConnection, ClientError> {
        let connection = BrokerConnection(endpoint, loop: loop, clientID: settings.clientID)
        do throws(ClientError) {
            let addresses = try await resolve(endpoint)
            try await connection.open(
                addresses, network: host.network, connectWithin: settings.connectTimeLimit,
                answerWithin: settings.requestTimeLimit)
            return .success(connection)
        } catch {
            return .failure(error)
        }
    }

    /// The resolver blocks, so it has a lane; a literal address needs none.
    private func resolve(_ endpoint: BrokerEndpoint) async throws(ClientError) -> [String] {
        let name = endpoint.host
        let isLiteral = name.contains(":") || name.utf8.allSatisfy { $0 == UInt8(ascii: ".") || (0x30...0x39).contains($0) }
        if isLiteral { return [name] }
        let lane = resolver ?? host.makeLane("resolve", threads: 1, limit: Self.resolutionsLimit)
        resolver = lane
        let network = host.network
        let found: Result<[String], SystemError>
        do throws(SystemError) {
            found = try await lane.run(on: loop) {
                Result { () throws(SystemError) in try network.resolve(name) }
            }
        } catch {
            found = .failure(error)
        }
        switch found {
        case .success(let addresses) where !addresses.isEmpty: return addresses
        case .success: throw .unreachable(["\(endpoint): the name has no address"])
        case .failure(let error): throw .unreachable(["\(endpoint): \(error.reason)"])
        }
    }

    // MARK: Metadata

    /// Asks for the brokers, and these topics; nil means all. `creating` lets the broker create them.
    @discardableResult
    package func refresh(topics: [String]?, creating: Bool = false) async throws(ClientError) -> ClusterView {
        let answer = try await ask(.any) { (version) throws(ClientError) -> MetadataRequest in
            var request = MetadataRequest()
            // before version 1 an empty list means all, and none cannot be said
            request.topics = topics.map { names in
                names.map { name in
                    var topic = MetadataRequest.MetadataRequestTopic()
                    topic.name = name
                    return topic
                }
            }
            if version == 0, topics == nil { request.topics = [] }
            // older brokers create what is asked for, whatever one says
            if version >= 4 { request.allowAutoTopicCreation = creating }
            return request
        }
        if answer.message.errorCode != .none {
            throw .refused(what: "Metadata", answer.message.errorCode, message: nil)
        }
        let view = ClusterView(answer.message)
        cluster = topics == nil ? view : cluster.merging(view)
        return view
    }

    private enum CoordinatedKey: Int8 {
        case group = 0
        case transactionalID = 1
    }

    private func findCoordinator(of key: String, _ kind: CoordinatedKey) async throws(ClientError) -> BrokerEndpoint {
        let answer = try await ask(.any, judging: { Self.coordinator(in: $0).code }) {
            (version) throws(ClientError) -> FindCoordinatorRequest in
            var request = FindCoordinatorRequest()
            if version >= 4 { request.coordinatorKeys = [key] } else { request.key = key }
            // before version 1 there are groups only
            guard version >= 1 || kind == .group else { throw .invalid("this broker is too old to know of transactions") }
            if version >= 1 { request.keyType = kind.rawValue }
            return request
        }
        let found = Self.coordinator(in: answer.message)
        guard found.code == .none else {
            let what = kind == .group ? "group" : "transactional id"
            throw .refused(what: "the coordinator of \(what) \(key)", found.code, message: found.message)
        }
        guard let port = UInt16(exactly: found.port), port > 0 else {
            throw .malformedAnswer(what: "FindCoordinator", broker: answer.broker, reason: "port \(found.port)")
        }
        return BrokerEndpoint(host: found.host, port: port)
    }

    private static func coordinator(
        in response: FindCoordinatorResponse
    ) -> (code: ErrorCode, message: String?, host: String, port: Int32) {
        if let one = response.coordinators.first { return (one.errorCode, one.errorMessage, one.host, one.port) }
        return (response.errorCode, response.errorMessage, response.host, response.port)
    }
}

/// How long one operation goes on, and how it waits between its attempts.
struct Patience {
    private let client: Client
    private let deadline: Instant
    private var delay: Interval
    private(set) var attemptsCount = 1

    init(_ client: Client) {
        self.client = client
        deadline = client.clock.now + client.settings.operationTimeLimit
        delay = client.settings.firstRetryDelay
    }

    /// Whether there is time for another attempt after a wait.
    var isLeft: Bool { attemptsCount < ClientSettings.attemptsLimit && client.clock.now + delay < deadline }

    /// What an answer may take now.
    var answerLimit: Interval {
        max(.milliseconds(1), min(client.settings.requestTimeLimit, deadline - client.clock.now))
    }

    mutating func wait() async {
        attemptsCount += 1
        await client.loop.sleep(for: delay)
        delay = min(delay + delay, client.settings.longestRetryDelay)
    }
}

extension ErrorCode {
    /// Whether another broker, or the same one in a moment, may do it. Fewer than what Kafka calls retriable: a topic
    /// that is not there is told at once.
    package var callsForAnotherTry: Bool {
        switch self {
        case .leaderNotAvailable, .notLeaderOrFollower, .brokerNotAvailable, .replicaNotAvailable, .networkException,
            .coordinatorLoadInProgress, .coordinatorNotAvailable, .notCoordinator, .notController, .kafkaStorageError,
            .fencedLeaderEpoch, .unknownLeaderEpoch, .offsetNotAvailable, .throttlingQuotaExceeded,
            .concurrentTransactions:
            true
        default: false
        }
    }
}

extension Client {
    /// Does something for each of several brokers at the same time; the results in the order of the items.
    func concurrently<Item: Sendable, Outcome: Sendable>(
        _ items: [Item], _ body: @escaping @Sendable (Item) async -> Outcome
    ) async -> [Outcome] {
        if items.count == 1 { return [await body(items[0])] }
        return await withTaskGroup(of: (Int, Outcome).self) { group in
            for (index, item) in items.enumerated() {
                group.addTask { (index, await body(item)) }
            }
            var outcomes = [Outcome?](repeating: nil, count: items.count)
            for await (index, outcome) in group { outcomes[index] = outcome }
            return outcomes.compactMap { $0 }
        }
    }
}
