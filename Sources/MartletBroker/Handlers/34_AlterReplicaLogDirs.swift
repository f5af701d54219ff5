import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// AlterReplicaLogDirs 1-2: moves replicas of this broker to other log directories. Answered when the move is decided upon; DescribeLogDirs
/// tells how far the copy is.
enum AlterReplicaLogDirsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(AlterReplicaLogDirsRequest.self)
        let (broker, responder) = (request.broker, request.later())
        request.connection.loop.spawn {
            var response = AlterReplicaLogDirsResponse()
            for directory in asked.dirs {
                for topic in directory.topics {
                    var answered = AlterReplicaLogDirsResponse.AlterReplicaLogDirTopicResult()
                    answered.topicName = topic.name
                    for index in topic.partitions {
                        var result = AlterReplicaLogDirsResponse.AlterReplicaLogDirPartitionResult()
                        result.partitionIndex = index
                        result.errorCode = await broker.cluster.moveReplica(TopicPartition(topic.name, index), to: directory.path)
                        answered.partitions.append(result)
                    }
                    response.results.append(answered)
                }
            }
            responder.answer(response)
        }
    }
}
