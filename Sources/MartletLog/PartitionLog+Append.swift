internal import MartletBasics
package import MartletModel
package import MartletReactor

/// What an append was given. It is published only when the write that follows has succeeded.
package struct Reservation: Sendable, Equatable {
    package var baseOffset: Offset
    package var lastOffset: Offset
    /// The leader epoch that was written into the batches.
    package var leaderEpoch: LeaderEpoch
    /// The batch was appended before, at `baseOffset`: nothing was reserved. It may not be published or durable yet.
    package var isDuplicate: Bool
    /// For a duplicate, the timestamp it was appended with; else -1.
    package var logAppendTime: Int64
}

/// The reservations that one write carries.
struct WriteGroup {
    struct Run {
        var segment: LogSegment
        var position: Int
        var pieces: [UnsafeRawBufferPointer]
        /// How many of the group's batches lie in it.
        var batchCount: Int
    }

    var runs: [Run] = []
    var batches: [BatchPlace] = []
    /// Transactions that markers among the batches aborted.
    var aborted: [AbortedTransaction] = []
    /// Before the first reservation, to go back to; and before the last, to let go of.
    var firstSavepoint: ProducerStateTable.Savepoint?
    var lastSavepoint: ProducerStateTable.Savepoint?
    var bytes = 0

    var isEmpty: Bool { runs.isEmpty }

    mutating func removeAll() {
        runs.removeAll(keepingCapacity: true)
        batches.removeAll(keepingCapacity: batches.count <= 256)
        aborted.removeAll(keepingCapacity: false)
        firstSavepoint = nil
        lastSavepoint = nil
        bytes = 0
    }
}

/// The bytes of all that was reserved, on their way to the file. They must stay where they are until `finishWrite`.
///
/// `perform` may run on any thread; it touches nothing of the log but the open file. Unchecked, because of the
/// pointers: the caller of `reserve` has promised that nobody changes what they point to.
package struct PendingWrite: @unchecked Sendable {
    struct Run {
        var file: any DiskFile
        var position: Int64
        var pieces: [UnsafeRawBufferPointer]
    }
    let runs: [Run]

    package func perform() -> SystemError? {
        for run in runs {
            do throws(SystemError) { try run.file.write(run.pieces, at: run.position) } catch { return error }
        }
        return nil
    }
}

extension PartitionLog {
    /// What is asked of batches before offsets are given.
    struct AppendShape {
        var batchCount = 0
        var size = 0
        var lastOffset: Offset = -1
        var maxTimestamp: Int64 = -1
        var firstMaxTimestamp: Int64 = -1
    }

    // MARK: Reserve

    /// Gives offsets to whole batches that the caller has checked (sizes, checksums, counts), and writes offset and
    /// leader epoch into them. The bytes must stay there unchanged until they are written: until `writeReserved` or
    /// `finishWrite` returns.
    package func reserve(
        _ batches: UnsafeMutableRawBufferPointer, leaderEpoch: LeaderEpoch, origin: AppendOrigin = .client,
        endsInNextEpoch: Bool = false
    ) throws(LogError) -> Reservation {
        try requireOpen()
        let shape = try shapeForLeader(batches)
        if let duplicate = try checkProducers(batches, leaderEpoch, origin, endsInNextEpoch) { return duplicate }
        try rollIfDue(for: shape, firstOffset: reservedEnd)

        let base = reservedEnd
        let savepoint = producers.savepoint()
        var place = WriteProgress(position: active.reservedSize, offset: base)
        while place.consumed < shape.size {
            let batch = UnsafeMutableRawBufferPointer(rebasing: batches[place.consumed...])
            batch.storeBytes(of: place.offset.bigEndian, toByteOffset: BatchHeader.At.baseOffset, as: Int64.self)
            batch.storeBytes(of: leaderEpoch.bigEndian, toByteOffset: BatchHeader.At.leaderEpoch, as: Int32.self)
            take(BatchHeader(UnsafeRawBufferPointer(batch)), UnsafeRawBufferPointer(batch), &place)
        }
        enqueue(UnsafeRawBufferPointer(rebasing: batches[..<shape.size]), shape, savepoint)
        reservedEnd = place.offset
        return Reservation(
            baseOffset: base, lastOffset: place.offset - 1, leaderEpoch: leaderEpoch, isDuplicate: false,
            logAppendTime: -1)
    }

    /// Reserves what a leader sent, with the offsets and epochs that it gave. Bytes after the last whole batch are left
    /// alone (a fetch may end inside a batch), and so is what one segment could not hold: the reservation says how far
    /// it came. Nil where there is no whole batch.
    package func reserveAsFollower(_ fetched: UnsafeRawBufferPointer) throws(LogError) -> Reservation? {
        try requireOpen()
        guard let shape = try shapeForFollower(fetched) else { return nil }
        let first = BatchHeader(fetched)
        try rollIfDue(for: shape, firstOffset: first.baseOffset)

        let savepoint = producers.savepoint()
        var place = WriteProgress(position: active.reservedSize, offset: first.baseOffset)
        var epoch = first.leaderEpoch
        while place.consumed < shape.size {
            let batch = UnsafeRawBufferPointer(rebasing: fetched[place.consumed...])
            let header = BatchHeader(batch)
            epoch = header.leaderEpoch
            take(header, batch, &place)
        }
        enqueue(UnsafeRawBufferPointer(rebasing: fetched[..<shape.size]), shape, savepoint)
        reservedEnd = place.offset
        return Reservation(
            baseOffset: first.baseOffset, lastOffset: place.offset - 1, leaderEpoch: epoch, isDuplicate: false,
            logAppendTime: -1)
    }

    private struct WriteProgress {
        var position: Int
        var offset: Offset
        var consumed = 0
    }

    /// Takes one batch over: into the producers' state and the list of what will be published.
    private func take(_ header: BatchHeader, _ bytes: UnsafeRawBufferPointer, _ place: inout WriteProgress) {
        if header.isControl {
            let marker = EndTransactionMarker(batch: UnsafeRawBufferPointer(rebasing: bytes[..<header.totalSize]))
            if let aborted = applyControl(header, marker) { pending.aborted.append(aborted) }
        } else {
            producers.apply(header, baseOffset: header.baseOffset)
        }
        pending.batches.append(BatchPlace(header, position: place.position))
        place.position += header.totalSize
        place.consumed += header.totalSize
        place.offset = header.nextOffset
    }

    /// What a control batch does to the producers' state; the transaction that it aborts.
    func applyControl(_ header: BatchHeader, _ marker: EndTransactionMarker?) -> AbortedTransaction? {
        guard let marker else {
            producers.apply(header, baseOffset: header.baseOffset)
            return nil
        }
        let completed = producers.applyMarker(
            header, type: marker.type, coordinatorEpoch: marker.coordinatorEpoch, offset: header.baseOffset)
        guard let completed, completed.isAborted else { return nil }
        return AbortedTransaction(
            producerID: completed.producerID, firstOffset: completed.firstOffset, lastOffset: completed.lastOffset,
            lastStableOffset: completed.lastStableOffset)
    }

    private func enqueue(
        _ bytes: UnsafeRawBufferPointer, _ shape: AppendShape, _ savepoint: ProducerStateTable.Savepoint
    ) {
        if pending.runs.last?.segment === active {
            pending.runs[pending.runs.count - 1].pieces.append(bytes)
            pending.runs[pending.runs.count - 1].batchCount += shape.batchCount
        } else {
            pending.runs.append(
                WriteGroup.Run(
                    segment: active, position: active.reservedSize, pieces: [bytes], batchCount: shape.batchCount))
        }
        pending.firstSavepoint = pending.firstSavepoint ?? savepoint
        pending.lastSavepoint = savepoint
        pending.bytes += shape.size
        active.reservedSize += shape.size
    }

    // MARK: Checks

    private func shapeForLeader(_ batches: UnsafeMutableRawBufferPointer) throws(LogError) -> AppendShape {
        var shape = AppendShape()
        shape.lastOffset = reservedEnd - 1
        while shape.size < batches.count {
            let rest = UnsafeRawBufferPointer(rebasing: batches[shape.size...])
            guard rest.count >= BatchHeader.size else {
                throw .refused(.corruptMessage, "a batch shorter than its header")
            }
            let header = BatchHeader(rest)
            guard header.batchLength >= BatchHeader.size - BatchHeader.lengthOverhead, header.totalSize <= rest.count,
                header.magic == 2, header.lastOffsetDelta >= 0
            else { throw .refused(.corruptMessage, "bytes that are no whole record batch of format 2") }
            shape.add(header, lastOffset: shape.lastOffset + 1 + Int64(header.lastOffsetDelta))
        }
        guard shape.batchCount > 0 else { throw .refused(.corruptMessage, "an append without a batch") }
        guard shape.size <= Int(config.segmentBytes) else {
            throw .refused(
                .recordListTooLarge,
                "\(shape.size) bytes of batches are more than a segment (segment.bytes=\(config.segmentBytes))")
        }
        return shape
    }

    private func shapeForFollower(_ fetched: UnsafeRawBufferPointer) throws(LogError) -> AppendShape? {
        var shape = AppendShape()
        shape.lastOffset = reservedEnd - 1
        while fetched.count - shape.size >= BatchHeader.size {
            let rest = UnsafeRawBufferPointer(rebasing: fetched[shape.size...])
            let header = BatchHeader(rest)
            guard header.batchLength >= BatchHeader.size - BatchHeader.lengthOverhead, header.magic == 2,
                header.lastOffsetDelta >= 0, header.baseOffset >= 0, header.baseOffset < .max - Int64(Int32.max)
            else { throw .refused(.corruptMessage, "the leader sent bytes that are no record batch of format 2") }
            guard header.totalSize <= rest.count else { break }
            let checked = UnsafeRawBufferPointer(rebasing: rest[BatchHeader.At.attributes..<header.totalSize])
            guard crc32c(checked) == header.crc else {
                throw .refused(
                    .corruptMessage,
                    "the batch at offset \(header.baseOffset) from the leader does not match its checksum")
            }
            // a compacted leader's log has gaps; what may not be is going back
            guard header.baseOffset > shape.lastOffset else {
                throw .outOfOrder(offset: header.baseOffset, expected: shape.lastOffset + 1)
            }
            // the rest is for the next append: one append lies in one segment
            if shape.batchCount > 0 {
                if header.lastOffset - BatchHeader(fetched).baseOffset > Int64(Int32.max) { break }
                if shape.size + header.totalSize > Int(config.segmentBytes) { break }
            }
            shape.add(header, lastOffset: header.lastOffset)
        }
        return shape.batchCount == 0 ? nil : shape
    }

    /// Whether this producer has a transaction open here, in this epoch; what is reserved counts.
    package func isInTransaction(_ producer: ProducerID, _ epoch: ProducerEpoch) -> Bool {
        producers.isInTransaction(producer, epoch)
    }

    /// Whether a batch of this producer is held against what came before it.
    package func knowsSequences(of producer: ProducerID) -> Bool { producers.knowsSequences(of: producer) }

    /// Asks the producers' state. A request has one batch as a rule; of several, all must be new.
    private func checkProducers(
        _ batches: UnsafeMutableRawBufferPointer, _ leaderEpoch: LeaderEpoch, _ origin: AppendOrigin, _ endsInNextEpoch: Bool
    ) throws(LogError) -> Reservation? {
        var position = 0
        while position < batches.count {
            let batch = UnsafeRawBufferPointer(rebasing: batches[position...])
            let header = BatchHeader(batch)
            defer { position += header.totalSize }
            guard header.hasProducer else { continue }
            var verdict = verdict(header, batch, origin, endsInNextEpoch)
            if case .refused(.outOfOrderSequenceNumber, _) = verdict, try recallBatches(of: header.producerID) {
                verdict = self.verdict(header, batch, origin, endsInNextEpoch)
            }
            switch verdict {
            case .accepted:
                continue
            case .duplicate(let base, let logAppendTime):
                guard position == 0, header.totalSize == batches.count else {
                    throw .refused(.invalidRecord, "an append of several batches of which one was appended before")
                }
                return Reservation(
                    baseOffset: base, lastOffset: base + Int64(header.lastOffsetDelta), leaderEpoch: leaderEpoch,
                    isDuplicate: true, logAppendTime: logAppendTime)
            case .refused(let code, let reason):
                throw .refused(code, reason)
            }
        }
        return nil
    }

    private func verdict(
        _ header: BatchHeader, _ batch: UnsafeRawBufferPointer, _ origin: AppendOrigin, _ endsInNextEpoch: Bool
    ) -> ProducerStateTable.Verdict {
        guard header.isControl else { return producers.check(header, origin: origin) }
        guard let marker = EndTransactionMarker(batch: UnsafeRawBufferPointer(rebasing: batch[..<header.totalSize]))
        else {
            return .refused(.invalidRecord, "a control batch with a producer that ends no transaction")
        }
        return producers.checkMarker(header, coordinatorEpoch: marker.coordinatorEpoch, endsInNextEpoch: endsInNextEpoch)
    }

    // MARK: Roll

    private func rollIfDue(for shape: AppendShape, firstOffset: Offset) throws(LogError) {
        let segment = active
        let exceedsOffsets = shape.lastOffset - segment.baseOffset > Int64(Int32.max)
        if exceedsOffsets, firstOffset == segment.baseOffset {
            throw .refused(.invalidRecord, "batches whose offsets span more than a segment can")
        }
        guard exceedsOffsets || isRollDue(segment, shape) else { return }
        // where the last one ends, not where these begin (a compacted leader's may leave a gap): see `checkSeam`
        try roll(at: shape.lastOffset - reservedEnd > Int64(Int32.max) ? firstOffset : reservedEnd)
    }

    private func isRollDue(_ segment: LogSegment, _ shape: AppendShape) -> Bool {
        guard segment.reservedSize > 0 else { return false }
        if segment.reservedSize > Int(config.segmentBytes) - shape.size { return true }
        if segment.reservedSize > Int(Int32.max) - shape.size { return true }
        // entries that pending batches may still add count as if they had
        let waiting = pending.batches.count + (inFlight?.batches.count ?? 0)
        let limit = Int(config.segmentIndexBytes)
        if segment.indexes!.offsetCount + waiting >= limit / SparseIndexes.offsetEntrySize { return true }
        // the last time entry is written when the segment is closed
        if segment.indexes!.timeCount + waiting >= limit / SparseIndexes.timeEntrySize - 1 { return true }
        return isOldEnough(segment, shape.maxTimestamp)
    }

    /// The age counts by the records' own time where they have one, as in Kafka: a replay of old records rolls as they
    /// did.
    private func isOldEnough(_ segment: LogSegment, _ timestamp: Int64) -> Bool {
        let now = clock.wallMilliseconds
        let first = segment.firstTimestamp ?? (segment.size > 0 ? try? segment.timestampOfFirstBatch(files) : nil)
        let (age, overflow): (Int64, Bool) =
            if let first, first >= 0, timestamp >= 0 {
                timestamp.subtractingReportingOverflow(first)
            } else {
                now.subtractingReportingOverflow(segment.createdMilliseconds)
            }
        return !overflow && age > config.rollMs - segment.jitterMilliseconds
    }

    /// Begins a new segment at the end of what is reserved, whether or not it is due. Nothing happens where the last
    /// one is empty.
    package func roll() throws(LogError) {
        try requireOpen()
        guard active.reservedSize > 0 else { return }
        try roll(at: reservedEnd)
    }

    func roll(at baseOffset: Offset) throws(LogError) {
        precondition(baseOffset >= reservedEnd, "a segment begins where the one before ends, or later")
        precondition(baseOffset > active.baseOffset, "two segments do not begin at one offset")
        try writeSnapshot(at: baseOffset)
        try addSegment(at: baseOffset)
        recent.removeAll()
        unsealedCount += 1
        activity.noteRoll()
        sealSegments()
    }

    /// Completes the index files of segments that are written to no more. What the disk refuses is tried again at the
    /// next write, and the recovery point waits for it; their indexes stay in memory as long.
    func sealSegments() {
        guard unsealedCount > 0 else { return }
        var left = 0
        for index in (segments.count - 1 - unsealedCount)..<(segments.count - 1) {
            let segment = segments[index]
            guard segment.isActive else { continue }
            guard segment.reservedSize == segment.size, left == 0 else {
                left += 1
                continue
            }
            do throws(LogError) {
                try seal(segment)
            } catch {
                left += 1
                postpone(error, "the index of segment \(segment.baseOffset) is not written yet, and will be tried again")
            }
        }
        unsealedCount = left
    }

    /// Brings the files of a segment into the form that stays.
    func seal(_ segment: LogSegment) throws(LogError) {
        try segment.removeRoom(files)
        unsyncedFiles.append(try segment.file(files))
        unsyncedFiles += try segment.completeIndexes(files)
        segment.close()
        sealedUnsynced = min(sealedUnsynced ?? segment.baseOffset, segment.baseOffset)
    }

    // MARK: Write and publish

    /// Writes what is reserved and publishes it; the log's new end. When it throws, every reservation since the last
    /// write has failed, and the log is as it was before them.
    @discardableResult
    package func writeReserved() throws(LogError) -> Offset {
        guard let write = try beginWrite() else { return logEndOffset }
        try finishWrite(write.perform())
        return logEndOffset
    }

    /// Takes what is reserved; nil where nothing is. Until `finishWrite`, more may be reserved but no other write
    /// begun.
    package func beginWrite() throws(LogError) -> PendingWrite? {
        precondition(inFlight == nil, "one write of a log at a time")
        guard !pending.isEmpty else { return nil }
        var runs: [PendingWrite.Run] = []
        runs.reserveCapacity(pending.runs.count)
        do throws(LogError) {
            for run in pending.runs {
                runs.append(
                    PendingWrite.Run(
                        file: try run.segment.file(files), position: Int64(run.position), pieces: run.pieces))
            }
        } catch {
            discardReservations()
            throw error
        }
        inFlight = pending
        pending = WriteGroup()
        return PendingWrite(runs: runs)
    }

    /// Publishes what was written, in order. Given an error, every reservation that is not published has failed, also
    /// those made since `beginWrite`; the error is thrown.
    package func finishWrite(_ failure: SystemError?) throws(LogError) {
        guard let group = inFlight else { preconditionFailure("a write that was not begun cannot be finished") }
        if let failure {
            discardReservations()
            throw .storage(failure)
        }
        var next = 0
        for run in group.runs {
            for batch in group.batches[next..<next + run.batchCount] { publish(batch, in: run.segment) }
            next += run.batchCount
        }
        for transaction in group.aborted {
            segments[segmentIndex(of: transaction.lastOffset)].transactions.append(transaction)
        }
        if let savepoint = group.lastSavepoint { producers.release(savepoint) }
        activeIsUnsynced = true
        unsyncedBytes += group.bytes
        grownBytes += group.bytes
        inFlight = nil
        sealSegments()
        if !group.aborted.isEmpty { spillTransactions() }
    }

    private func publish(_ batch: BatchPlace, in segment: LogSegment) {
        precondition(batch.baseOffset >= offsets.logEnd, "what is published has its place after the log's end")
        if epochs.latestEpoch != batch.leaderEpoch, batch.leaderEpoch >= 0 {
            if epochs.assign(epoch: batch.leaderEpoch, startOffset: batch.baseOffset) { epochFile = .changed }
        }
        segment.publish(batch, indexInterval: Int(config.indexIntervalBytes))
        if segment === active { recent.append(batch) }
        offsets.set(logEnd: batch.lastOffset + 1)
    }

    private func spillTransactions() {
        guard active.transactions.mustWrite else { return }
        // refused by a full disk: they stay in memory, and the next write tries again
        do throws(LogError) {
            if let file = try active.transactions.write(files) { unsyncedFiles.append(file) }
        } catch {
            postpone(error)
        }
    }

    /// Takes back what is reserved and not yet on its way to the file: whoever reserved it may not append any more. The
    /// log is as it was before.
    package func abandonReservations() {
        precondition(inFlight == nil, "a write under way is finished, not abandoned")
        if !pending.isEmpty { discardReservations() }
    }

    /// Takes back every reservation that is not published: the file, the segments begun for them, the producers' state.
    private func discardReservations() {
        let savepoint = inFlight?.firstSavepoint ?? pending.firstSavepoint
        inFlight = nil
        pending.removeAll()
        reservedEnd = offsets.logEnd
        do throws(LogError) {
            while segments.count > 1, active.baseOffset > offsets.logEnd {
                let segment = segments.removeLast()
                try removeFiles(of: segment)
                try files.remove(segment.path(.snapshot))
            }
            try activateLast()
            active.reservedSize = active.size
            try active.cutFile(to: active.size, files)
            // a snapshot of a roll that was taken back tells of what never came to be
            try removeSnapshots { $0 > offsets.logEnd }
            if let savepoint, !producers.restore(savepoint) { try reloadProducers() }
        } catch {
            breakDown("what a failed write left could not be taken back: \(error)")
        }
    }
}

extension PartitionLog.AppendShape {
    fileprivate mutating func add(_ header: BatchHeader, lastOffset: Offset) {
        if batchCount == 0 { firstMaxTimestamp = header.maxTimestamp }
        batchCount += 1
        size += header.totalSize
        self.lastOffset = lastOffset
        maxTimestamp = max(maxTimestamp, header.maxTimestamp)
    }
}
