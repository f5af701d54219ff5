import MartletBasics
import MartletModel

extension GroupCoordinator: GroupFiguresSource {
    /// By id. A partition's groups stand still for as long as it takes to note what they are: their offsets are shared
    /// with the copy until one changes, and put in order here.
    package var figures: [GroupFigures] {
        let found = allShards.flatMap { shard in (try? shard.read { $0.copies }.get()) ?? [] }
        return found.map { copy in
            GroupFigures(
                id: copy.id, state: copy.state, members: copy.members,
                offsets: copy.offsets.sorted.map { ($0.id, $0.committed.offset) })
        }.sorted { $0.id < $1.id }
    }
}

extension GroupMachine {
    fileprivate struct Copy {
        var id: String
        var state: String
        var members: Int
        var offsets: CommittedOffsets
    }

    fileprivate var copies: [Copy] {
        sortedIDs.compactMap { id in
            groups[id].map { group in
                let members = group.classic?.members.count ?? group.consumer?.members.count ?? 0
                return Copy(id: id, state: group.stateName, members: members, offsets: group.offsets)
            }
        }
    }
}
