extension ProduceRequest {
    /// One batch for one partition of a topic that goes by its name: up to version 12.
    package init(
        _ batch: [UInt8], to topic: String, _ partition: Int32 = 0, acks: Int16, timeoutMs: Int32 = 30_000,
        transactionalID: String? = nil
    ) {
        var part = PartitionProduceData()
        part.index = partition
        part.records = .owned(batch)
        var data = TopicProduceData()
        data.name = topic
        data.partitionData = [part]
        self.init()
        self.transactionalID = transactionalID
        self.acks = acks
        self.timeoutMs = timeoutMs
        topicData = [data]
    }
}
