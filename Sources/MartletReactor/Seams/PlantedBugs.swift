/// Bugs on purpose, for the test of the tests: the simulation must find each of them. Only a simulated host has any; no
/// setting leads here. They are asked for where something is opened, made or decided once a turn, not per record.
package struct PlantedBugs: OptionSet, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// What was written is said to be durable, and was not synced.
    package static let skippedSync = PlantedBugs(rawValue: 1 << 0)
    /// Who asked for acks=all is answered when the leader has written.
    package static let earlyAcknowledgement = PlantedBugs(rawValue: 1 << 1)
    /// Consumers are given what is not committed yet.
    package static let readsAboveHighWatermark = PlantedBugs(rawValue: 1 << 2)
    /// After a crash the torn end of a log is left in its file, and what is appended next stands behind it.
    package static let forgottenTruncation = PlantedBugs(rawValue: 1 << 3)
    /// Snapshots of producers' state are written empty.
    package static let forgottenProducers = PlantedBugs(rawValue: 1 << 4)
    /// Now and then a change of groups is acknowledged and not written.
    package static let lostCommit = PlantedBugs(rawValue: 1 << 5)
    /// Readers of what is committed are not told what was aborted.
    package static let untoldAborts = PlantedBugs(rawValue: 1 << 6)
    /// The cleaner does not see in a tombstone that what came before it is superseded.
    package static let overlookedTombstones = PlantedBugs(rawValue: 1 << 7)
    /// When a connection ends the broker, which lives on, forgets the sequences that producers have come to.
    package static let forgottenSequences = PlantedBugs(rawValue: 1 << 8)
    /// That records are deleted is acknowledged, and where the log begins then is not written.
    package static let unwrittenLogStart = PlantedBugs(rawValue: 1 << 9)

    /// All of them, by name.
    package static let named: [(name: String, bug: PlantedBugs)] = [
        ("skippedSync", .skippedSync), ("earlyAcknowledgement", .earlyAcknowledgement),
        ("readsAboveHighWatermark", .readsAboveHighWatermark), ("forgottenTruncation", .forgottenTruncation),
        ("forgottenProducers", .forgottenProducers), ("lostCommit", .lostCommit), ("untoldAborts", .untoldAborts),
        ("overlookedTombstones", .overlookedTombstones), ("forgottenSequences", .forgottenSequences),
        ("unwrittenLogStart", .unwrittenLogStart),
    ]
}

extension Host {
    package var planted: PlantedBugs { [] }
}
