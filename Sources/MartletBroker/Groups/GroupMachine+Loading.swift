import MartletBasics
package import MartletModel

/// What is read from the log, before anything else is handled.
extension GroupMachine {
    package mutating func load(_ record: ReplayedRecord) -> Bool {
        if record.isControl {
            if let value = record.value, let producer = record.transactionOf,
                let marker = EndTransactionMarker(key: record.key, value: value)
            {
                loadTransactionEnd(of: producer, commits: marker.type == .commit)
            }
            return true
        }
        switch GroupRecords.decode(key: record.key, value: record.value) {
        case .known(let known): load(known, at: record.offset, transactionOf: record.transactionOf)
        case .foreign: load(foreign: record.key, exists: record.value != nil)
        case .unknown, .malformed: return false
        }
        return true
    }

    /// Topics that something is committed for, where the commits say which.
    package var summary: [DeletedTopic] { committedTopics }

    /// Whose transaction a record is of, if it is of one.
    package mutating func load(_ record: GroupRecord, at offset: Offset, transactionOf producer: ProducerID? = nil) {
        switch record {
        case .offset(let key, let value):
            let committed = value.map { CommittedOffset($0, recordOffset: offset) }
            // a tombstone makes no group
            guard groups[key.group] != nil || committed != nil else { return }
            let group = groups[key.group] ?? Group(ClassicGroup(id: key.group))
            groups[key.group] = group
            if let producer {
                hold(TopicPartition(key.topic, key.partition), committed, of: producer, in: group)
            } else {
                group.offsets.apply(key.topic, key.partition, committed, recordOffset: offset)
            }
        case .group(let key, let value): load(key.group, value)
        case .consumer(let record): load(record)
        case .tombstone(let key): _ = key.withUnsafeBytes { load(foreign: $0, exists: false) }
        }
    }

    private mutating func load(_ id: String, _ value: GroupMetadataValue?) {
        let known = groups[id]
        if let value {
            let classic = ClassicGroup(id: id, value)
            if let known { known.kind = .classic(classic) } else { groups[id] = Group(classic) }
        } else if let known, known.classic != nil {
            // its offsets went before it, where all of it was deleted
            if known.offsets.isEmpty, !known.offsets.hasOpenTransactions {
                groups[id] = nil
            } else {
                known.kind = .classic(ClassicGroup(id: id))
            }
        }
    }

    /// What is later in the log is what counts, whatever type the group had before.
    private mutating func load(_ record: ConsumerRecord) {
        let known = groups[record.group]
        if record.isTombstone {
            guard let known, var consumer = known.consumer else { return }
            consumer.apply(record)
            known.kind = .consumer(consumer)
            guard case .epoch = record else { return }
            // its end: nothing is left but what was committed
            if known.offsets.isEmpty, !known.offsets.hasOpenTransactions {
                groups[record.group] = nil
            } else {
                known.kind = .classic(ClassicGroup(id: record.group))
            }
            return
        }
        var consumer = known?.consumer ?? ConsumerGroup(id: record.group)
        consumer.apply(record)
        if let known { known.kind = .consumer(consumer) } else { groups[record.group] = Group(consumer) }
    }

    /// A record of another type of group, by its key alone. False where the key is none that is known.
    @discardableResult
    package mutating func load(foreign raw: UnsafeRawBufferPointer, exists: Bool) -> Bool {
        guard let key = ForeignKey(raw) else { return false }
        var foreign = ForeignGroup(key.type)
        if let known = groups[key.group] {
            switch known.kind {
            case .foreign(let before) where before.type == key.type: foreign = before
            case .foreign: break
            // the end of what the group was before it became classic
            case .classic(let classic): guard exists, classic.members.isEmpty else { return true }
            case .consumer: guard exists else { return true }
            }
            foreign.apply(key, bytes: Array(raw), exists: exists)
            known.kind = .foreign(foreign)
        } else if exists {
            foreign.apply(key, bytes: Array(raw), exists: true)
            groups[key.group] = Group(key.group, foreign)
        }
        return true
    }

    /// The end of a transaction in this partition.
    package mutating func loadTransactionEnd(of producer: ProducerID, commits: Bool) {
        _ = endTransaction(of: producer, commits: commits)
    }

    /// The groups that it concerned.
    mutating func endTransaction(of producer: ProducerID, commits: Bool) -> [Group] {
        let groups = inTransaction.removeValue(forKey: producer) ?? []
        for group in groups { group.offsets.end(producer, commits: commits) }
        return groups
    }

    /// All is read: from now on sessions count, each as a whole, for nobody could be heard meanwhile.
    package mutating func finishLoading(at moment: GroupMoment) -> [GroupAction] {
        self.moment = moment
        for id in sortedIDs {
            guard let group = groups[id] else { continue }
            if case .foreign(let foreign) = group.kind {
                if foreign.isGone {
                    guard !group.offsets.isEmpty || group.offsets.hasOpenTransactions else {
                        groups[id] = nil
                        continue
                    }
                    group.kind = .classic(ClassicGroup(id: id))
                }
                if foreign.hasMembers { foreignMembersUntil = moment.now + settings.foreignMembersTimeout }
            }
            if var consumer = group.consumer {
                consumer.finishLoading()
                group.kind = .consumer(consumer)
                arm(group)
            }
            if let classic = group.classic {
                for member in classic.members { deadlines.set(member, due: moment.now + member.sessionTimeout) }
                if classic.members.count > settings.sizeLimit { prepareRebalance(classic) }
            }
            recount(group)
        }
        defer { actions = [] }
        return actions
    }

    mutating func foreignMembersAreGone() {
        foreignMembersUntil = nil
        for id in sortedIDs {
            guard let group = groups[id], case .foreign(var foreign) = group.kind else { continue }
            foreign.membersAreGone()
            group.kind = .foreign(foreign)
        }
    }
}
