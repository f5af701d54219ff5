import MartletWire

/// A response that can tell its client to wait. All that can are listed here; a test compares them with the schemas.
protocol ThrottledResponse: WireResponse {
    var throttleTimeMs: Int32 { get set }
}

extension WireResponse {
    /// The same, telling the client to wait for so long; at versions that cannot say so it is not written.
    func throttled(forMs milliseconds: Int32) -> Self {
        guard milliseconds > 0, var response = self as? any ThrottledResponse else { return self }
        response.throttleTimeMs = milliseconds
        return response as? Self ?? self
    }
}

extension ProduceResponse: ThrottledResponse {}
extension FetchResponse: ThrottledResponse {}
extension ListOffsetsResponse: ThrottledResponse {}
extension MetadataResponse: ThrottledResponse {}
extension OffsetCommitResponse: ThrottledResponse {}
extension OffsetFetchResponse: ThrottledResponse {}
extension FindCoordinatorResponse: ThrottledResponse {}
extension JoinGroupResponse: ThrottledResponse {}
extension HeartbeatResponse: ThrottledResponse {}
extension LeaveGroupResponse: ThrottledResponse {}
extension SyncGroupResponse: ThrottledResponse {}
extension DescribeGroupsResponse: ThrottledResponse {}
extension ListGroupsResponse: ThrottledResponse {}
extension ApiVersionsResponse: ThrottledResponse {}
extension CreateTopicsResponse: ThrottledResponse {}
extension DeleteTopicsResponse: ThrottledResponse {}
extension DeleteRecordsResponse: ThrottledResponse {}
extension InitProducerIdResponse: ThrottledResponse {}
extension OffsetForLeaderEpochResponse: ThrottledResponse {}
extension AddPartitionsToTxnResponse: ThrottledResponse {}
extension AddOffsetsToTxnResponse: ThrottledResponse {}
extension EndTxnResponse: ThrottledResponse {}
extension TxnOffsetCommitResponse: ThrottledResponse {}
extension DescribeAclsResponse: ThrottledResponse {}
extension CreateAclsResponse: ThrottledResponse {}
extension DeleteAclsResponse: ThrottledResponse {}
extension DescribeConfigsResponse: ThrottledResponse {}
extension AlterConfigsResponse: ThrottledResponse {}
extension AlterReplicaLogDirsResponse: ThrottledResponse {}
extension DescribeLogDirsResponse: ThrottledResponse {}
extension CreatePartitionsResponse: ThrottledResponse {}
extension CreateDelegationTokenResponse: ThrottledResponse {}
extension RenewDelegationTokenResponse: ThrottledResponse {}
extension ExpireDelegationTokenResponse: ThrottledResponse {}
extension DescribeDelegationTokenResponse: ThrottledResponse {}
extension DeleteGroupsResponse: ThrottledResponse {}
extension ElectLeadersResponse: ThrottledResponse {}
extension IncrementalAlterConfigsResponse: ThrottledResponse {}
extension AlterPartitionReassignmentsResponse: ThrottledResponse {}
extension ListPartitionReassignmentsResponse: ThrottledResponse {}
extension OffsetDeleteResponse: ThrottledResponse {}
extension DescribeClientQuotasResponse: ThrottledResponse {}
extension AlterClientQuotasResponse: ThrottledResponse {}
extension DescribeUserScramCredentialsResponse: ThrottledResponse {}
extension AlterUserScramCredentialsResponse: ThrottledResponse {}
extension AlterPartitionResponse: ThrottledResponse {}
extension UpdateFeaturesResponse: ThrottledResponse {}
extension FetchSnapshotResponse: ThrottledResponse {}
extension DescribeClusterResponse: ThrottledResponse {}
extension DescribeProducersResponse: ThrottledResponse {}
extension BrokerRegistrationResponse: ThrottledResponse {}
extension BrokerHeartbeatResponse: ThrottledResponse {}
extension UnregisterBrokerResponse: ThrottledResponse {}
extension DescribeTransactionsResponse: ThrottledResponse {}
extension ListTransactionsResponse: ThrottledResponse {}
extension AllocateProducerIdsResponse: ThrottledResponse {}
extension ConsumerGroupHeartbeatResponse: ThrottledResponse {}
extension ConsumerGroupDescribeResponse: ThrottledResponse {}
extension ControllerRegistrationResponse: ThrottledResponse {}
extension GetTelemetrySubscriptionsResponse: ThrottledResponse {}
extension PushTelemetryResponse: ThrottledResponse {}
extension AssignReplicasToDirsResponse: ThrottledResponse {}
extension ListConfigResourcesResponse: ThrottledResponse {}
extension DescribeTopicPartitionsResponse: ThrottledResponse {}
extension ShareGroupHeartbeatResponse: ThrottledResponse {}
extension ShareGroupDescribeResponse: ThrottledResponse {}
extension ShareFetchResponse: ThrottledResponse {}
extension ShareAcknowledgeResponse: ThrottledResponse {}
extension AddRaftVoterResponse: ThrottledResponse {}
extension RemoveRaftVoterResponse: ThrottledResponse {}
extension UpdateRaftVoterResponse: ThrottledResponse {}
extension StreamsGroupHeartbeatResponse: ThrottledResponse {}
extension StreamsGroupDescribeResponse: ThrottledResponse {}
extension DescribeShareGroupOffsetsResponse: ThrottledResponse {}
extension AlterShareGroupOffsetsResponse: ThrottledResponse {}
extension DeleteShareGroupOffsetsResponse: ThrottledResponse {}
extension StreamsGroupTopologyDescriptionUpdateResponse: ThrottledResponse {}
extension UnregisterControllerResponse: ThrottledResponse {}
