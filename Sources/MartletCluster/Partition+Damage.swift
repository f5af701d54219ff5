package import MartletLog
import MartletModel
package import MartletReactor

extension Partition {
    /// What was read and checked on a lane before it is sent. Damage takes this partition offline; a disk that refuses, its
    /// directory.
    package func noteChecked(_ verdict: SliceVerdict) {
        let failure = lock.withLock { () -> LogError? in
            guard offlineReason == nil else { return nil }
            do throws(LogError) { try log.noteChecked(verdict) } catch { return error }
            return nil
        }
        if let failure { readFailed(failure) }
    }

    /// Not under the lock. What follows a damaged batch is whole, perhaps, and nothing of it is cut; but nothing is built
    /// upon it either, until somebody has looked.
    func readFailed(_ error: LogError) {
        if error.isDamage { return goOffline("\(error)") }
        guard error.takesDirectoryOffline else { return }
        directory.refused(error) { "a read of \(id) failed" }
    }

    /// Whether it serves nothing because something failed, and not because it was stopped or is being moved.
    package var hasFailed: Bool { lock.withLock { offlineReason != nil && !isMoving } }
}

extension LocalTopics {
    /// What was to be sent could not be read from its file, by whoever sends it: that takes the directory offline, as it
    /// does where a partition reads. A file that ends too early was truncated meanwhile, and one that is not there any more
    /// was deleted.
    package func readFailed(_ error: SystemError) {
        guard error.kind == .inputOutput, error.code != 0 else { return }
        let partition = table.partitions.first { error.subject.hasPrefix($0.directory.path + "/") }
        partition?.directory.refused(.storage(error)) { "what was asked for could not be sent" }
    }
}
