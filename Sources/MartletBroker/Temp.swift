import MartletCluster
import MartletModel
import MartletReactor
package final class ClusterMember: @unchecked Sendable {
    let metadata = MetadataStore(MetadataImage(clusterID: "x", controllerID: 1, brokers: [], topics: []))
    let topics = LocalTopics()
    func createAutomatically(_ name: String) {}
    func createTopic(_ wanted: NewTopic, validateOnly: Bool) async -> Result<CreatedTopic, TopicFault> { .failure(TopicFault(.none, "")) }
    func deleteTopic(_ name: String, id: UUID) async -> TopicFault? { nil }
    func allocateProducerID() async -> ProducerID? { nil }
}
