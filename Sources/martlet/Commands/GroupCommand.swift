import MartletBasics
import MartletClient
import MartletModel

/// `martlet group`: consumer groups, their members, and how far they are.
enum GroupCommand: ProgramCommand {
    static let definition = CommandLineArguments.Command(
        "group", "Shows consumer groups and how far they are, sets their offsets, deletes them.",
        subcommands: [listDefinition, describeDefinition, OffsetReset.definition, deleteDefinition])

    static func run(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> Never {
        switch arguments.command {
        case "group list": try Session.run(arguments) { session in try await list(session) }
        case "group describe": try Session.run(arguments) { session in try await describe(session) }
        case "group reset-offsets":
            let reset = try OffsetReset(arguments)
            try Session.run(arguments) { session in try await reset.run(session) }
        default: try Session.run(arguments) { session in try await delete(session) }
        }
    }

    // MARK: list

    private static let listDefinition = CommandLineArguments.Command(
        "list", "Lists the groups.", commonFlags: ClientFlags.all,
        notes: [
            #"""
            With --json: {"groups": [{"group": …, "state": "Stable", "type": "classic", "protocolType": "consumer",
            "coordinator": 1}, …]}. What the broker does not say is null.
            """#
        ],
        examples: ["martlet group list"])

    private static func list(_ session: Session) async throws {
        let (groups, faults) = try await session.client.groups()
        for fault in faults { session.complain(partly: "\(fault)") }
        var table = TextTable([.init("GROUP"), .init("STATE"), .init("TYPE"), .init("PROTOCOL"), .init("COORDINATOR", .right)])
        var entries: [JSONValue] = []
        for group in groups {
            table.add(group.id, group.state, group.type, group.protocolType, "\(group.coordinator)")
            entries.append([
                "group": .string(group.id), "state": orNull(group.state), "type": orNull(group.type),
                "protocolType": orNull(group.protocolType), "coordinator": .int(Int64(group.coordinator)),
            ])
        }
        session.show(["groups": .array(entries)], groups.isEmpty ? "" : table.text(isStyled: session.isStyled))
        if groups.isEmpty, !session.isJSON { session.remark("There are no groups.") }
    }

    private static func orNull(_ text: String) -> JSONValue { text.isEmpty ? .null : .string(text) }

    // MARK: describe

    private static let describeDefinition = CommandLineArguments.Command(
        "describe", "Shows the state of groups, their members, and how far they are in each partition.",
        flags: [WhyText.flag], commonFlags: ClientFlags.all, operands: [.init("GROUP", mayRepeat: true, "Their ids.")],
        notes: [
            #"""
            With --json: {"groups": [{"group": …, "state": "Stable", "protocolType": "consumer", "assignor": "range",
            "lag": 5, "members": [{"id": …, "instanceId": null, "clientId": …, "host": …}, …], "partitions":
            [{"topic": …, "partition": 0, "committed": 5, "end": 10, "lag": 5, "member": null}, …]}, …]}. `committed`,
            `end` and `lag` are null where nothing is committed, or the partition is gone; `member` is the id of the
            member that reads it. `protocolType` and `assignor` are null while the group has none.
            """#, WhyText.note,
        ],
        examples: [
            "martlet group describe billing", "martlet group describe billing --why",
            "martlet group describe billing --json | jq '.groups[].lag'",
        ])

    /// How far a group is in a partition.
    private struct Progress {
        var partition: TopicPartition
        var committed: Offset?
        var end: Offset?
        var member: GroupMember?

        /// Never below zero: offsets can be committed beyond the end.
        var lag: Int64? { committed.flatMap { committed in end.map { max(0, $0 - committed) } } }
    }

    private static func describe(_ session: Session) async throws {
        var texts: [String] = []
        var entries: [JSONValue] = []
        for id in session.arguments.operands {
            do {
                let group = try await session.client.group(id)
                let progress = try await progress(of: group, session.client)
                var text = text(group, progress, isStyled: session.isStyled)
                var entry = json(group, progress)
                if session.arguments.has("why") {
                    let reasons = try await session.client.reasons(ofGroup: id)
                    text += WhyText.text(reasons)
                    entry["why"] = WhyText.json(reasons)
                }
                texts.append(text)
                entries.append(.object(entry))
            } catch let error as ClientError where error.code != nil {
                session.complain(partly: "\(error)")
            }
        }
        session.show(["groups": .array(entries)], texts.joined(separator: "\n"))
    }

    private static func progress(of group: GroupDescription, _ client: Client) async throws -> [Progress] {
        let committed = try await client.committed(by: group.id)
        let assigned = group.members.flatMap { member in member.assigned.map { ($0, member) } }
        let partitions = Array(Set(committed.map(\.partition) + assigned.map(\.0))).sorted()
        let ends = partitions.isEmpty ? [] : try await client.offsets(.latest, of: partitions)
        return partitions.enumerated().map { index, partition in
            Progress(
                partition: partition, committed: committed.first { $0.partition == partition }?.offset,
                end: ends[index].offset, member: assigned.first { $0.0 == partition }?.1)
        }
    }

    private static func text(_ group: GroupDescription, _ progress: [Progress], isStyled: Bool) -> String {
        let lag = progress.reduce(0) { $0 + ($1.lag ?? 0) }
        var text = "group \(group.id)  state \(group.state)"
        if !group.assignor.isEmpty { text += "  assignor \(TextTable.shown(group.assignor))" }
        text += "  members \(group.members.count)  lag \(lag)\n"
        var table = TextTable([
            .init("TOPIC"), .init("PARTITION", .right), .init("COMMITTED", .right), .init("END", .right),
            .init("LAG", .right), .init("CLIENT"), .init("HOST"), .init("MEMBER"),
        ])
        func number(_ number: Int64?) -> String { number.map { "\($0)" } ?? "" }
        for one in progress {
            table.add(
                one.partition.topic, "\(one.partition.partition)", number(one.committed), number(one.end), number(one.lag),
                one.member?.clientID ?? "", one.member?.clientHost ?? "", one.member?.id ?? "")
        }
        for idle in group.members where idle.assigned.isEmpty {
            table.add("", "", "", "", "", idle.clientID, idle.clientHost, idle.id)
        }
        return text + (table.isEmpty ? "" : table.text(isStyled: isStyled))
    }

    private static func json(_ group: GroupDescription, _ progress: [Progress]) -> JSONObject {
        func number(_ number: Int64?) -> JSONValue { number.map { .int($0) } ?? .null }
        let members = group.members.map { member -> JSONValue in
            [
                "id": .string(member.id), "instanceId": member.instanceID.map { .string($0) } ?? .null,
                "clientId": .string(member.clientID), "host": .string(member.clientHost),
            ]
        }
        let parts = progress.map { one -> JSONValue in
            [
                "topic": .string(one.partition.topic), "partition": .int(Int64(one.partition.partition)),
                "committed": number(one.committed), "end": number(one.end), "lag": number(one.lag),
                "member": one.member.map { .string($0.id) } ?? .null,
            ]
        }
        return [
            "group": .string(group.id), "state": .string(group.state), "protocolType": orNull(group.protocolType),
            "assignor": orNull(group.assignor), "lag": .int(progress.reduce(0) { $0 + ($1.lag ?? 0) }),
            "members": .array(members), "partitions": .array(parts),
        ]
    }

    // MARK: delete

    private static let deleteDefinition = CommandLineArguments.Command(
        "delete", "Deletes groups that have no members, with what they have committed.", commonFlags: ClientFlags.all,
        operands: [.init("GROUP", mayRepeat: true, "Their ids.")],
        notes: [#"With --json: {"groups": [{"group": …, "deleted": true, "error": null}, …]}."#],
        examples: ["martlet group delete billing"])

    private static func delete(_ session: Session) async throws {
        var lines: [String] = []
        var entries: [JSONValue] = []
        for id in session.arguments.operands {
            var fault: ClientError?
            do throws(ClientError) {
                try await session.client.deleteGroup(id)
                lines.append("group \(id) deleted\n")
            } catch {
                guard error.code != nil else { throw error }
                fault = error
                session.complain(partly: "\(error)")
            }
            entries.append([
                "group": .string(id), "deleted": .bool(fault == nil), "error": fault.map { .string("\($0)") } ?? .null,
            ])
        }
        session.show(["groups": .array(entries)], lines.joined())
    }
}
