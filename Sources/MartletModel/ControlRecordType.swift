/// What a control record says: the second `int16` of its key.
package enum ControlRecordType: Int16, Sendable {
    case abort = 0
    case commit
    case leaderChange
    case snapshotHeader
    case snapshotFooter
    case kraftVersion
    case kraftVoters
}
