package import MartletModel
package import MartletReactor
internal import Synchronization

/// What a participant has written since it was last asked, and what is durable once the files and folders are synced.
package struct UnsyncedWrites: Sendable {
    /// Files that were written to. Held until they are synced, so that a cache of descriptors does not close them
    /// before.
    package var files: [any DiskFile]
    /// Folders in which names were made, renamed or removed.
    package var folders: [String]
    /// The log's end at the time: durable afterwards.
    package var endOffset: Offset
    /// Raised by each truncation: what was taken under an older one says nothing about the log's end now.
    package var generation: UInt64
    package var bytes: Int
    /// How many offsets become durable.
    package var records: Int

    package init(
        files: [any DiskFile], folders: [String], endOffset: Offset, generation: UInt64, bytes: Int, records: Int = 0
    ) {
        self.files = files
        self.folders = folders
        self.endOffset = endOffset
        self.generation = generation
        self.bytes = bytes
        self.records = records
    }
}

/// Something that writes files and wants them synced: a partition's log.
package protocol SyncParticipant: AnyObject, Sendable {
    /// Made once with the participant; the syncer's note whether it is in its list.
    var arming: SyncArming { get }
    /// Takes over what was written since the last call. Nil when nothing was.
    func takeUnsynced() -> UnsyncedWrites?
    func synced(_ writes: UnsyncedWrites)
    /// Nothing of `writes` may be assumed durable, now or after a later success.
    func syncFailed(_ writes: UnsyncedWrites, _ error: SystemError)
}

/// How far a participant has asked for a sync. Raised by `Syncer.arm`, put down when a cycle takes the participant.
package final class SyncArming: Sendable {
    /// 0 not in the list, 1 in the list, 2 in the list and somebody waits.
    let level = Atomic<UInt8>(0)
    package init() {}
}
