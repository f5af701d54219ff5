import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// DescribeLogDirs 1-5: the log directories, and the replicas in them: also the copies (`isFutureKey`) that are to replace one in another
/// directory. Version 4 tells the room on the disk; 5 whether new replicas may come, which they always may.
enum DescribeLogDirsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DescribeLogDirsRequest.self)
        let (broker, responder) = (request.broker, request.later())
        request.connection.loop.spawn {
            var response = DescribeLogDirsResponse()
            response.results = await broker.cluster.describeLogDirs().map { directory in
                var result = DescribeLogDirsResponse.DescribeLogDirsResult()
                result.errorCode = directory.isOnline ? .none : .kafkaStorageError
                result.logDir = directory.path
                result.totalBytes = directory.space?.totalBytes ?? -1
                result.usableBytes = directory.space?.availableBytes ?? -1
                result.topics = topics(directory.replicas, asked.topics)
                return result
            }
            responder.answer(response)
        }
    }

    private static func topics(
        _ replicas: [LogDirDescription.Replica], _ asked: [DescribeLogDirsRequest.DescribableLogDirTopic]?
    ) -> [DescribeLogDirsResponse.DescribeLogDirsTopic] {
        var wanted: Set<TopicPartition>?
        if let asked { wanted = Set(asked.flatMap { topic in topic.partitions.map { TopicPartition(topic.topic, $0) } }) }
        var topics: [DescribeLogDirsResponse.DescribeLogDirsTopic] = []
        for replica in replicas where wanted?.contains(replica.id) != false {
            if topics.last?.name != replica.id.topic {
                var topic = DescribeLogDirsResponse.DescribeLogDirsTopic()
                topic.name = replica.id.topic
                topics.append(topic)
            }
            var partition = DescribeLogDirsResponse.DescribeLogDirsPartition()
            partition.partitionIndex = replica.id.partition
            partition.partitionSize = replica.sizeBytes
            partition.offsetLag = replica.lag
            partition.isFutureKey = replica.isFuture
            topics[topics.count - 1].partitions.append(partition)
        }
        return topics
    }
}
