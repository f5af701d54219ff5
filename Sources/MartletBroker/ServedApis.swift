import MartletWire

/// The APIs that this broker serves: what is advertised, and what a request is dispatched to. An API appears here with
/// its handler, not before.
enum ServedApis {
    typealias Handler = @Sendable (Request) throws -> Void

    private static let handlers: [(api: ApiKey, handle: Handler)] = [
        (.fetch, FetchHandler.handle),
        (.listOffsets, ListOffsetsHandler.handle),
        (.metadata, MetadataHandler.handle),
        (.offsetCommit, OffsetCommitHandler.handle),
        (.offsetFetch, OffsetFetchHandler.handle),
        (.findCoordinator, FindCoordinatorHandler.handle),
        (.joinGroup, JoinGroupHandler.handle),
        (.heartbeat, HeartbeatHandler.handle),
        (.leaveGroup, LeaveGroupHandler.handle),
        (.syncGroup, SyncGroupHandler.handle),
        (.describeGroups, DescribeGroupsHandler.handle),
        (.listGroups, ListGroupsHandler.handle),
        (.apiVersions, ApiVersionsHandler.handle),
        (.createTopics, CreateTopicsHandler.handle),
        (.deleteTopics, DeleteTopicsHandler.handle),
        (.deleteRecords, DeleteRecordsHandler.handle),
        (.initProducerID, InitProducerIDHandler.handle),
        (.deleteGroups, DeleteGroupsHandler.handle),
        (.offsetDelete, OffsetDeleteHandler.handle),
        (.offsetForLeaderEpoch, OffsetForLeaderEpochHandler.handle),
        (.addPartitionsToTxn, AddPartitionsToTxnHandler.handle),
        (.addOffsetsToTxn, AddOffsetsToTxnHandler.handle),
        (.endTxn, EndTxnHandler.handle),
        (.writeTxnMarkers, WriteTxnMarkersHandler.handle),
        (.txnOffsetCommit, TxnOffsetCommitHandler.handle),
        (.describeTransactions, DescribeTransactionsHandler.handle),
        (.listTransactions, ListTransactionsHandler.handle),
        (.saslHandshake, SaslHandler.handshake),
        (.describeAcls, AclsHandler.describe),
        (.createAcls, AclsHandler.create),
        (.deleteAcls, AclsHandler.delete),
        (.describeConfigs, DescribeConfigsHandler.handle),
        (.alterConfigs, AlterConfigsHandler.handle),
        (.alterReplicaLogDirs, AlterReplicaLogDirsHandler.handle),
        (.describeLogDirs, DescribeLogDirsHandler.handle),
        (.saslAuthenticate, SaslHandler.authenticate),
        (.createPartitions, CreatePartitionsHandler.handle),
        (.electLeaders, ElectLeadersHandler.handle),
        (.incrementalAlterConfigs, IncrementalAlterConfigsHandler.handle),
        (.alterPartitionReassignments, AlterPartitionReassignmentsHandler.handle),
        (.listPartitionReassignments, ListPartitionReassignmentsHandler.handle),
        (.describeClientQuotas, DescribeClientQuotasHandler.handle),
        (.alterClientQuotas, AlterClientQuotasHandler.handle),
        (.describeUserScramCredentials, DescribeUserScramCredentialsHandler.handle),
        (.describeCluster, DescribeClusterHandler.handle),
        (.describeProducers, DescribeProducersHandler.handle),
        (.listConfigResources, ListConfigResourcesHandler.handle),
        (.consumerGroupHeartbeat, ConsumerGroupHeartbeatHandler.handle),
        (.consumerGroupDescribe, ConsumerGroupDescribeHandler.handle),
        (.describeTopicPartitions, DescribeTopicPartitionsHandler.handle),
    ]

    /// Answered, though no client is told of them.
    private static let unadvertised: [(api: ApiKey, handle: Handler)] = [
        (.getTelemetrySubscriptions, TelemetryHandler.subscriptions),
        (.pushTelemetry, TelemetryHandler.push),
    ]

    /// By rising key, Produce (which connections handle themselves) included.
    static let advertised: [(key: Int16, versions: ClosedRange<Int16>)] = ([.produce] + handlers.map(\.api)).compactMap { api in
        AdvertisedVersions.clientRange(of: api).map { (api.rawValue, $0) }
    }.sorted { $0.key < $1.key }

    static func versions(of key: Int16) -> ClosedRange<Int16>? { advertised.first { $0.key == key }?.versions }

    private static let byKey: [Handler?] = {
        let all = handlers + unadvertised
        var table = [Handler?](repeating: nil, count: Int(all.map(\.api.rawValue).max()!) + 1)
        for (api, handle) in all { table[Int(api.rawValue)] = handle }
        return table
    }()

    /// The handler of a request; nil where the API or its version is not served. ApiVersions answers at every version.
    static func handler(of key: Int16, version: Int16) -> Handler? {
        if key == ExplainApi.key, ExplainApi.versions.contains(version) { return ExplainHandler.handle }
        guard key >= 0, Int(key) < byKey.count, let handle = byKey[Int(key)] else { return nil }
        if let versions = versions(of: key) {
            return key == ApiKey.apiVersions.rawValue || versions.contains(version) ? handle : nil
        }
        return ApiKey(rawValue: key)!.stableVersions.contains(version) ? handle : nil
    }
}
