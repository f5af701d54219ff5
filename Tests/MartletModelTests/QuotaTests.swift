import MartletModel
import Testing

@Suite struct Quotas {
    /// From the one that counts before all others, as Kafka orders them, with who shares each.
    private static let levels: [(entity: QuotaEntity, user: String?, client: String?)] = [
        (.userClient(user: .named("alice"), client: .named("app")), "alice", "app"),
        (.userClient(user: .named("alice"), client: .everyOther), "alice", "app"),
        (.user(.named("alice")), "alice", nil),
        (.userClient(user: .everyOther, client: .named("app")), "alice", "app"),
        (.userClient(user: .everyOther, client: .everyOther), "alice", "app"),
        (.user(.everyOther), "alice", nil),
        (.client(.named("app")), nil, "app"),
        (.client(.everyOther), nil, "app"),
    ]

    @Test func ofAllThatIsSetForAClientTheNearestCounts() {
        for first in Self.levels.indices {
            var values: [QuotaEntity: ClientQuotas.Values] = [:]
            for level in first..<Self.levels.count {
                values[Self.levels[level].entity] = [.producerBytes: Double(level + 1)]
            }
            let bound = ClientQuotas(values).bound(.producerBytes, user: "alice", client: "app")
            let expected = Self.levels[first]
            #expect(
                bound == .init(.producerBytes, Double(first + 1), user: expected.user, client: expected.client),
                "level \(first)")
        }
        #expect(ClientQuotas().bound(.producerBytes, user: "alice", client: "app") == nil)
    }

    @Test func anEntityWithoutThisKindOfQuotaLeavesItToTheNext() {
        let quotas = ClientQuotas([
            .user(.named("alice")): [.producerBytes: 1], .client(.named("app")): [.consumerBytes: 2, .producerBytes: 3],
        ])
        #expect(quotas.bound(.consumerBytes, user: "alice", client: "app")?.value == 2)
        #expect(quotas.bound(.producerBytes, user: "alice", client: "app")?.value == 1)
        #expect(quotas.bound(.requestTime, user: "alice", client: "app") == nil)
        #expect(quotas.bound(.producerBytes, user: "bob", client: "other") == nil)
    }

    @Test func quotasAreFoundByNameByDefaultAndByType() throws {
        let quotas = ClientQuotas(Dictionary(uniqueKeysWithValues: Self.levels.map { ($0.entity, [.producerBytes: 1]) }))
        func found(_ conditions: [ClientQuotas.Condition], strict: Bool = false) -> Int {
            quotas.matching(conditions, isStrict: strict).count
        }
        #expect(found([]) == 8)
        #expect(found([], strict: true) == 0)
        #expect(found([.init(.user, .name("alice"))]) == 3)
        #expect(found([.init(.user, .name("alice"))], strict: true) == 1)
        #expect(found([.init(.user, .everyOther)]) == 3)
        #expect(found([.init(.client, .any)]) == 6)
        #expect(found([.init(.client, .any)], strict: true) == 2)
        #expect(found([.init(.user, .name("alice")), .init(.client, .everyOther)], strict: true) == 1)
        #expect(found([.init(.address, .any)]) == 0)
    }

    @Test func whatIsStoredBesideQuotasStaysWhenTheyChange() throws {
        let stored = [("SCRAM-SHA-256", "salt=…"), ("producer_byte_rate", "5")]
        let changed = try QuotaEdit.changing(
            stored, [.init("producer_byte_rate", nil), .init("request_percentage", 50)], of: .user(.everyOther)
        ).get()
        #expect(changed.map { "\($0.name)=\($0.value)" } == ["SCRAM-SHA-256=salt=…", "request_percentage=50.0"])
    }

    @Test(arguments: [Double.nan, .infinity, 0, -1, 1.5, 0.0000001, 1e300])
    func aRateOfBytesThatCannotBeIsRefused(_ value: Double) {
        let refused = QuotaEdit.changing([], [.init("producer_byte_rate", value)], of: .user(.named("a")))
        guard case .failure(let fault) = refused else { return #expect(Bool(false), "\(value) was taken") }
        #expect(fault.error == .invalidRequest)
    }

    @Test func aRateThatIsWholeButForBinaryFractionsIsTaken() throws {
        let taken = try QuotaEdit.changing([], [.init("consumer_byte_rate", 1023.9999999)], of: .client(.named("a"))).get()
        #expect(taken.map(\.value) == ["1024"])
    }

    @Test func anAddressIsTheSameHoweverItIsWritten() {
        #expect(IPAddress("::ffff:10.0.0.1") == IPAddress("10.0.0.1"))
        #expect(IPAddress("2001:DB8::1") == IPAddress("2001:db8:0:0:0:0:0:1"))
        #expect(IPAddress("::") != nil)
        #expect(IPAddress("1::") == IPAddress("1:0:0:0:0:0:0:0"))
        #expect(IPAddress("10.0.0.1") != IPAddress("10.0.0.2"))
        for text in [
            "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.-4", "1.2.3.+4", "host", "1:2", ":::", "1::2::3", "1:2:3:4:5:6:7:8:9",
            "12345::", "1:2:3:4:5:6:7::8:9", "fe80::1%eth0", "1.2.3.4::", "+1::",
        ] { #expect(IPAddress(text) == nil, "\(text)") }
    }

    @Test func ofTwoSpellingsOfAnAddressTheLowerRateCounts() {
        let quotas = ClientQuotas([
            .address(.named("::1")): [.connections: 5], .address(.named("0:0:0:0:0:0:0:1")): [.connections: 3],
            .address(.everyOther): [.connections: 9],
        ])
        #expect(quotas.connectionRate(of: IPAddress("::1")) == 3)
        #expect(quotas.connectionRate(of: IPAddress("1.2.3.4")) == 9)
        #expect(!quotas.concernsRequests && quotas.concernsAddresses)
    }
}
