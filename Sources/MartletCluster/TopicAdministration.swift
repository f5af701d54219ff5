package import MartletModel

/// A topic that somebody wants made.
package struct NewTopic: Sendable {
    package struct Assignment: Sendable, Equatable {
        package var partition: Int32
        package var brokers: [BrokerID]

        package init(partition: Int32, brokers: [BrokerID]) {
            self.partition = partition
            self.brokers = brokers
        }
    }

    package struct Setting: Sendable, Equatable {
        package var name: String
        package var value: String?

        package init(name: String, value: String?) {
            self.name = name
            self.value = value
        }
    }

    package var name: String
    /// -1: the broker's default, or as many as are assigned.
    package var partitionCount: Int32
    /// -1: the broker's default, or as many as are assigned.
    package var replicationFactor: Int16
    package var assignments: [Assignment]
    package var settings: [Setting]

    package init(
        name: String, partitionCount: Int32, replicationFactor: Int16, assignments: [Assignment] = [], configs: [Setting] = []
    ) {
        self.name = name
        self.partitionCount = partitionCount
        self.replicationFactor = replicationFactor
        self.assignments = assignments
        settings = configs
    }
}

package struct CreatedTopic: Sendable {
    package var id: UUID
    package var partitionCount: Int32
    package var replicationFactor: Int16
    /// What was set for the topic, by name.
    package var settings: [(name: String, value: String)]

    package init(id: UUID, partitionCount: Int32, replicationFactor: Int16, settings: [(name: String, value: String)]) {
        self.id = id
        self.partitionCount = partitionCount
        self.replicationFactor = replicationFactor
        self.settings = settings
    }
}

/// Why a topic was not made or deleted.
package struct TopicFault: Error, Sendable, Equatable {
    package var error: ErrorCode
    package var message: String

    package init(_ error: ErrorCode, _ message: String) {
        self.error = error
        self.message = message
    }
}
