import MartletSwarm
import Testing

/// A judge that lets everything pass proves nothing: histories that no coordinator may write, and beside each one that it may.
@Suite struct GroupLedgers {
    private func member(_ id: String, _ instance: String? = nil, in ledger: GroupLedger) -> GroupLedger.Member {
        GroupLedger.Member(id: id, instance: instance, asked: ledger.moment(), told: ledger.moment())
    }

    private func assign(
        _ ledger: GroupLedger, _ member: GroupLedger.Member, _ generation: Int32, _ partitions: [Int32], token: Int64 = 1,
        asked: Int? = nil
    ) {
        ledger.assigned(
            "g", generation: generation, to: member, partitions: partitions, token: token, asked: asked ?? ledger.moment())
    }

    private func violations(_ history: (GroupLedger) -> Void) -> [String] {
        let ledger = GroupLedger()
        history(ledger)
        return ledger.violations
    }

    @Test func aPartitionWithTwoOwnersInOneGenerationIsSeen() {
        let broken = violations { ledger in
            assign(ledger, member("a", in: ledger), 1, [0, 1])
            assign(ledger, member("b", in: ledger), 1, [1])
        }
        #expect(broken == ["partition 1 of g belongs to member a and to member b in generation 1"])
        #expect(
            violations { ledger in
                let a = member("a", in: ledger)
                assign(ledger, a, 1, [0, 1])
                assign(ledger, a, 1, [0, 1])
                assign(ledger, member("b", in: ledger), 2, [1], token: 2)
            }.isEmpty)
        #expect(
            violations { ledger in
                assign(ledger, member("a", "i", in: ledger), 1, [0])
                assign(ledger, member("b", "i", in: ledger), 1, [0])
            }.isEmpty, "a static member that came back has what it had")
    }

    @Test func aGenerationWithTwoAssignmentsIsSeen() {
        let broken = violations { ledger in
            assign(ledger, member("a", in: ledger), 1, [0], token: 1)
            assign(ledger, member("b", in: ledger), 1, [1], token: 2)
        }
        #expect(broken == ["generation 1 of g has two assignments: 1 and 2"])
    }

    @Test func whoIsTakenFromAfterALaterGenerationIsSeen() {
        for (what, ask) in [
            ("was given partitions", { (ledger: GroupLedger, a: GroupLedger.Member) in assign(ledger, a, 1, []) }),
            ("may go on", { $0.heartbeatAccepted("g", generation: 1, by: $1, asked: $0.moment()) }),
            ("committed", { $0.commitAccepted("g", generation: 1, by: $1, asked: $0.moment()) }),
        ] {
            let broken = violations { ledger in
                let a = member("a", in: ledger)
                assign(ledger, a, 1, [0])
                assign(ledger, member("b", in: ledger), 2, [0], token: 2)
                ask(ledger, a)
            }
            #expect(broken == ["a \(what) in generation 1 of g, and asked when b had been told of generation 2"])
        }
        #expect(
            violations { ledger in
                let a = member("a", in: ledger)
                assign(ledger, a, 1, [0])
                let asked = ledger.moment()
                assign(ledger, member("b", in: ledger), 2, [0], token: 2)
                ledger.heartbeatAccepted("g", generation: 1, by: a, asked: asked)
                ledger.commitAccepted("g", generation: 1, by: a, asked: asked)
            }.isEmpty, "what was asked before may be answered after")
    }

    @Test func whoIsTakenFromAfterAnotherTookItsPlaceIsSeen() {
        let broken = violations { ledger in
            let a = member("a", "i", in: ledger)
            assign(ledger, a, 1, [0])
            assign(ledger, member("b", "i", in: ledger), 1, [0])
            ledger.commitAccepted("g", generation: 1, by: a, asked: ledger.moment())
        }
        #expect(broken == ["a committed in generation 1 of g, and asked when b had taken its place as i"])
        #expect(
            violations { ledger in
                let asked = ledger.moment()
                let b = member("b", "i", in: ledger)
                // nobody can tell which of two came first that asked at one time
                let a = GroupLedger.Member(id: "a", instance: "i", asked: asked, told: ledger.moment())
                assign(ledger, b, 1, [0])
                assign(ledger, a, 1, [0])
                ledger.commitAccepted("g", generation: 1, by: b, asked: ledger.moment())
                ledger.commitAccepted("g", generation: 1, by: a, asked: ledger.moment())
            }.isEmpty)
    }

    @Test func aGroupThatDoesNotSettleIsSeen() {
        #expect(GroupLedger.unsettled(partitions: 2, [("a", 3, [0]), ("b", 3, [1])]) == nil)
        #expect(GroupLedger.unsettled(partitions: 2, [("a", 3, [0]), ("b", 4, [1])]) == "a is in generation 3, b in 4")
        #expect(GroupLedger.unsettled(partitions: 2, [("a", 3, [0]), ("b", 3, [])]) == "partitions [0] of 2 have an owner")
        #expect(
            GroupLedger.unsettled(partitions: 2, [("a", 3, [0, 1]), ("b", 3, [1])])
                == "partitions [0, 1, 1] of 2 have an owner")
        #expect(GroupLedger.unsettled(partitions: 2, []) == "nobody is in it")
    }
}
