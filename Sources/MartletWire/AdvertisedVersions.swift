/// What ApiVersions answers: for every API the versions that a client may use.
package enum AdvertisedVersions {
    package struct Entry: Equatable, Sendable {
        package var api: ApiKey
        package var versions: ClosedRange<Int16>
    }

    /// The range that Apache Kafka 4.3 advertises to clients. It is not always what is served: Produce is offered from
    /// 0, without which older librdkafka does not compress, and served from 3. Nil: not offered to clients.
    package static func clientRange(of api: ApiKey) -> ClosedRange<Int16>? {
        // the schemas reach further than 4.3 for some APIs; a range beyond them would be a promise that cannot be kept
        guard let offered = kafka43(api) else { return nil }
        let high = min(offered.upperBound, api.stableVersions.upperBound)
        return offered.lowerBound <= high ? offered.lowerBound...high : nil
    }

    /// What brokers of the ZooKeeper era say to each other, at the versions of 3.9; offered where there are other
    /// brokers.
    package static func brokerRange(of api: ApiKey) -> ClosedRange<Int16>? {
        switch api {
        case .leaderAndIsr, .stopReplica, .updateMetadata, .controlledShutdown, .alterPartition, .allocateProducerIDs:
            api.stableVersions
        default: nil
        }
    }

    /// Whether only a KRaft cluster has the API: Kafka 4.3 advertises it, a cluster on a coordination service does not.
    package static func isKRaftOnly(_ api: ApiKey) -> Bool {
        switch api {
        case .describeQuorum, .unregisterBroker, .addRaftVoter, .removeRaftVoter: true
        default: false
        }
    }

    /// What is offered to a client, by rising key: without what only KRaft has, and with what brokers say to each
    /// other where `hasPeers`.
    package static func entries(hasPeers: Bool) -> [Entry] {
        var entries: [Entry] = []
        for api in ApiKey.allCases {
            if let versions = clientRange(of: api), !isKRaftOnly(api) {
                entries.append(Entry(api: api, versions: versions))
            } else if hasPeers, let versions = brokerRange(of: api) {
                entries.append(Entry(api: api, versions: versions))
            }
        }
        return entries
    }

    /// Whether a request of this version can be decoded, which Produce 0 to 2 cannot, though they are advertised.
    package static func isServed(_ api: ApiKey, _ version: Int16) -> Bool {
        guard let range = clientRange(of: api) ?? brokerRange(of: api) else { return false }
        return range.contains(version) && api.versions.contains(version)
    }

    private static func kafka43(_ api: ApiKey) -> ClosedRange<Int16>? {
        switch api {
        case .produce: 0...13
        case .fetch: 4...18
        case .listOffsets: 1...11
        case .metadata: 0...13
        case .offsetCommit: 2...10
        case .offsetFetch: 1...10
        case .findCoordinator: 0...6
        case .joinGroup: 0...9
        case .heartbeat: 0...4
        case .leaveGroup: 0...5
        case .syncGroup: 0...5
        case .describeGroups: 0...6
        case .listGroups: 0...5
        case .saslHandshake: 0...1
        case .apiVersions: 0...4
        case .createTopics: 2...7
        case .deleteTopics: 1...6
        case .deleteRecords: 0...2
        case .initProducerID: 0...5
        case .offsetForLeaderEpoch: 2...4
        case .addPartitionsToTxn: 0...5
        case .addOffsetsToTxn: 0...4
        case .endTxn: 0...5
        case .writeTxnMarkers: 1...2
        case .txnOffsetCommit: 0...5
        case .describeAcls: 1...3
        case .createAcls: 1...3
        case .deleteAcls: 1...3
        case .describeConfigs: 1...4
        case .alterConfigs: 0...2
        case .alterReplicaLogDirs: 1...2
        case .describeLogDirs: 1...5
        case .saslAuthenticate: 0...2
        case .createPartitions: 0...3
        case .createDelegationToken: 1...3
        case .renewDelegationToken: 1...2
        case .expireDelegationToken: 1...2
        case .describeDelegationToken: 1...3
        case .deleteGroups: 0...2
        case .electLeaders: 0...2
        case .incrementalAlterConfigs: 0...1
        case .alterPartitionReassignments: 0...1
        case .listPartitionReassignments: 0...0
        case .offsetDelete: 0...0
        case .describeClientQuotas: 0...1
        case .alterClientQuotas: 0...1
        case .describeUserScramCredentials: 0...0
        case .alterUserScramCredentials: 0...0
        case .describeQuorum: 0...2
        case .updateFeatures: 0...2
        case .describeCluster: 0...2
        case .describeProducers: 0...0
        case .unregisterBroker: 0...0
        case .describeTransactions: 0...0
        case .listTransactions: 0...2
        case .consumerGroupHeartbeat: 0...1
        case .consumerGroupDescribe: 0...1
        case .listConfigResources: 0...1
        case .describeTopicPartitions: 0...0
        case .shareGroupHeartbeat: 1...1
        case .shareGroupDescribe: 1...1
        case .shareFetch: 1...2
        case .shareAcknowledge: 1...2
        case .addRaftVoter: 0...1
        case .removeRaftVoter: 0...0
        case .initializeShareGroupState: 0...0
        case .readShareGroupState: 0...0
        case .writeShareGroupState: 0...1
        case .deleteShareGroupState: 0...0
        case .readShareGroupStateSummary: 0...1
        case .streamsGroupHeartbeat: 0...0
        case .streamsGroupDescribe: 0...0
        case .describeShareGroupOffsets: 0...1
        case .alterShareGroupOffsets: 0...0
        case .deleteShareGroupOffsets: 0...0
        default: nil
        }
    }
}
