import MartletBasics
import MartletClient
import MartletModel
import MartletWire
import Testing

@Suite struct VersionsAreAgreedOn {
    @Test func aNewBrokerIsSpokenToInTheNewestVersionThatBothHave() throws {
        let world = try ClientWorld()
        #expect(try world.run { try await $0.refresh(topics: nil) }.get().clusterID == "cluster")
        #expect(world.broker.seen == [.init(api: .apiVersions, version: 4), .init(api: .metadata, version: 13)])
    }

    /// Brokers before 2.4 answer a version that they do not know in version 0, with an error.
    @Test(arguments: 0...3 as ClosedRange<Int16>)
    func aBrokerThatDoesNotKnowTheVersionIsAskedAgainInItsOwn(_ limit: Int16) throws {
        let world = try ClientWorld()
        world.broker.apiVersionsLimit = limit
        world.broker.offered[.apiVersions] = 0...limit
        _ = try world.run { try await $0.refresh(topics: nil) }.get()
        #expect(world.broker.seen.prefix(2).map(\.version) == [4, limit])
        #expect(world.broker.connectionsCount == 1)
    }

    @Test func anOldBrokerThatNamesNoVersionsIsAskedInVersionZero() throws {
        let world = try ClientWorld()
        world.broker.on(ApiVersionsRequest.self) { _, version in
            version > 0 ? .bytes([0, 35]) : .answer(Self.offering([.metadata: 0...5, .apiVersions: 0...1]))
        }
        _ = try world.run { try await $0.refresh(topics: nil) }.get()
        #expect(world.broker.seen.map(\.version) == [4, 0, 5])
    }

    static func offering(_ ranges: [ApiKey: ClosedRange<Int16>]) -> ApiVersionsResponse {
        var response = ApiVersionsResponse()
        response.apiKeys = ranges.keys.sorted { $0.rawValue < $1.rawValue }.map { api in
            var entry = ApiVersionsResponse.ApiVersion()
            entry.apiKey = api.rawValue
            entry.minVersion = ranges[api]?.lowerBound ?? 0
            entry.maxVersion = ranges[api]?.upperBound ?? 0
            return entry
        }
        return response
    }

    @Test(arguments: [0...0, 0...1, 0...3, 3...8, 9...9, 12...99] as [ClosedRange<Int16>])
    func everyVersionOfMetadataIsUnderstood(_ range: ClosedRange<Int16>) throws {
        let world = try ClientWorld()
        world.broker.offered[.metadata] = range
        world.leaders = [1, 1]
        let view = try world.run { try await $0.refresh(topics: ["orders"]) }.get()
        #expect(view.topic("orders")?.partitions.map(\.leader) == [1, 1])
        #expect(world.broker.seen.last?.version == min(range.upperBound, 13))
    }

    @Test func whatABrokerDoesNotOfferIsSaidAtOnceAndNotAsked() throws {
        let world = try ClientWorld()
        world.broker.offered[.deleteTopics] = nil
        world.broker.offered[.createTopics] = 90...99
        let deletion = try world.run { try await $0.deleteTopics(["orders"]) }
        #expect(deletion.error?.isUnsupported == true)
        #expect("\(try #require(deletion.error))".contains("it does not offer DeleteTopics"))
        let creation = try world.run { try await $0.createTopics([NewTopic("a")]) }
        #expect("\(try #require(creation.error))".contains("versions 90 to 99"))
        #expect(world.broker.count(of: .deleteTopics) + world.broker.count(of: .createTopics) == 0)
    }

    @Test func whatAnOldVersionCannotSayIsRefusedHere() throws {
        let world = try ClientWorld()
        world.broker.offered[.createTopics] = 2...3
        let result = try world.run { try await $0.createTopics([NewTopic("a")]) }
        #expect("\(try #require(result.error))".contains("say how many partitions"))
        world.broker.on(CreateTopicsRequest.self) { request, _ in
            var response = CreateTopicsResponse()
            response.topics = request.topics.map { asked in
                var topic = CreateTopicsResponse.CreatableTopicResult()
                topic.name = asked.name
                return topic
            }
            return .answer(response)
        }
        let said = NewTopic("a", partitions: 2, replicationFactor: 1)
        #expect(try world.run { try await $0.createTopics([said]) }.get() == [Outcome("a", nil)])
    }
}
