import MartletBasics
import MartletCluster
import MartletModel

/// The topic that a connection produced to last, so that the next request finds it without hashing its name.
struct TopicCache {
    private var topic: LocalTopic?
    private var generation: UInt64 = 0

    /// The topic of this name among those served here.
    mutating func topic(named name: UnsafeRawBufferPointer, in table: LocalTopicTable) -> LocalTopic? {
        if let topic, generation == table.generation, topic.nameBytes.count == name.count {
            let same = topic.nameBytes.withUnsafeBytes { $0.elementsEqual(name) }
            if same { return topic }
        }
        topic = table.topic(String(decoding: name, as: UTF8.self))
        generation = table.generation
        return topic
    }
}
