import MartletBasics
import MartletClient
import MartletModel

/// `martlet cluster`: which brokers there are.
enum ClusterCommand: ProgramCommand {
    static let definition = CommandLineArguments.Command(
        "cluster", "Shows the brokers of a cluster.",
        subcommands: [
            .init(
                "describe", "Shows the cluster's id, its controller and its brokers.", commonFlags: ClientFlags.all,
                notes: [
                    #"""
                    With --json: {"clusterId": …, "controller": 1, "brokers": [{"id": 1, "host": …, "port": 9092,
                    "rack": null}, …], "topics": 3, "partitions": 9, "leaderless": 0}. `controller` is -1 where none is
                    known; `leaderless` counts the partitions that have no leader.
                    """#
                ],
                examples: ["martlet cluster describe", "martlet cluster describe --bootstrap broker-1:9092 --json"])
        ])

    static func run(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> Never {
        try Session.run(arguments) { session in
            let view = try await session.client.refresh(topics: nil)
            let partitions = view.topics.flatMap(\.partitions)
            let leaderless = partitions.count { $0.leader < 0 }
            let brokers = view.brokers.map { broker -> JSONValue in
                [
                    "id": .int(Int64(broker.id)), "host": .string(broker.endpoint.host),
                    "port": .int(Int64(broker.endpoint.port)), "rack": broker.rack.map { .string($0) } ?? .null,
                ]
            }
            session.show(
                [
                    "clusterId": view.clusterID.map { .string($0) } ?? .null,
                    "controller": .int(Int64(view.controllerID)), "brokers": .array(brokers),
                    "topics": .int(Int64(view.topics.count)), "partitions": .int(Int64(partitions.count)),
                    "leaderless": .int(Int64(leaderless)),
                ], text(view, partitions.count, leaderless, isStyled: session.isStyled))
        }
    }

    private static func text(_ view: ClusterView, _ partitions: Int, _ leaderless: Int, isStyled: Bool) -> String {
        var table = TextTable([.init("BROKER", .right), .init("ADDRESS"), .init("RACK"), .init("ROLE")])
        for broker in view.brokers {
            table.add(
                "\(broker.id)", "\(broker.endpoint)", broker.rack ?? "",
                broker.id == view.controllerID ? "controller" : "")
        }
        return """
            cluster \(TextTable.shown(view.clusterID ?? ""))  topics \(view.topics.count)  partitions \(partitions)  \
            without a leader \(leaderless)
            \(table.text(isStyled: isStyled))
            """
    }
}
