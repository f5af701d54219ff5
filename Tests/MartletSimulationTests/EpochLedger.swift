import MartletModel
import MartletSwarm

/// What members of consumer groups were told, of either protocol, and whether a coordinator may have told them that.
///
/// The promises: of one epoch a partition has one owner. Whoever had it before is fenced when the next one is told: a
/// commit for it in an earlier epoch that is sent after that is taken no more. An epoch in which a member is only rises.
final class EpochLedger {
    typealias Moment = GroupLedger.Moment

    private struct Told {
        var moment: Moment
        var epoch: Int32
        var owner: String
        var partitions: Set<Int32>
    }

    private struct Ownership: Hashable {
        var epoch: Int32
        var partition: Int32
    }

    private let report: (String) -> Void
    private var told: [String: [Told]] = [:]
    private var owners: [String: [Ownership: String]] = [:]

    init(_ report: @escaping (String) -> Void) { self.report = report }

    /// A member was told what it has in an epoch.
    func assigned(_ group: String, epoch: Int32, to owner: String, partitions: [Int32], at moment: Moment) {
        for partition in partitions {
            let ownership = Ownership(epoch: epoch, partition: partition)
            if let other = owners[group]?[ownership], other != owner {
                report("partition \(partition) of \(group) belongs to \(other) and to \(owner) in epoch \(epoch)")
            }
            owners[group, default: [:]][ownership] = owner
        }
        told[group, default: []].append(Told(moment: moment, epoch: epoch, owner: owner, partitions: Set(partitions)))
    }

    /// A commit that was sent at that moment was acknowledged.
    func committed(_ group: String, epoch: Int32, by owner: String, partition: Int32, sent: Moment) {
        for other in told[group] ?? [] where other.moment < sent && other.epoch > epoch && other.owner != owner {
            guard other.partitions.contains(partition) else { continue }
            return report(
                "\(owner) committed partition \(partition) of \(group) in epoch \(epoch), and asked when \(other.owner) had "
                    + "been told that it has it in epoch \(other.epoch)")
        }
    }
}
