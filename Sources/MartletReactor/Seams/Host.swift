/// The machine as the program sees it: the real one, or one of a simulated world. Everything that starts takes one.
package protocol Host: AnyObject, Sendable {
    var clock: any Clock { get }
    var disk: any Disk { get }
    var network: any Network { get }
    /// The loops that serve connections; at least one. The first also runs what there is one of.
    var loops: [any EventLoop] { get }
    /// A new lane of so many threads, whose queue holds at most `limit` pieces of work.
    func makeLane(_ name: String, threads: Int, limit: Int) -> any Lane
    /// Those that were made, in that order; several may have one name.
    var lanes: [any Lane] { get }
    /// What this process has of the machine by now. Reads files of the system: for lanes.
    func processUsage() -> ProcessUsage
    /// Sixteen bytes that nobody has had before: identifiers of clusters, topics, directories. From the seed in a
    /// simulated world.
    func randomBytes(_ count: Int) -> [UInt8]
    /// None but in tests of the simulation.
    var planted: PlantedBugs { get }
}

extension Host {
    /// A seed that nobody has had before.
    package func randomSeed() -> UInt64 { randomBytes(8).reduce(0) { $0 << 8 | UInt64($1) } }
}
