import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// Produce 3-13: appends one record batch to each of some partitions. Versions 0 to 2 are advertised (older librdkafka
/// stops compressing where 0 is missing) but not served.
///
/// Version 5 tells the log start, 7 allows zstd, 8 names the records that were refused, 9 is flexible, 10 tells the new
/// leader with errors of leadership, 13 names topics by id.
///
/// The request is read by hand, its batches never copied: each is checked where it lies in the receive buffer, given
/// its offset there, and written from there with what else the turn brings for the partition.
extension Connection {
    func produce(_ header: FrameHeader, _ frame: UnsafeMutableRawBufferPointer, _ reader: inout ByteReader) throws -> Handled {
        reader.elementBytesLeft = min(reader.elementBytesLeft, Self.producePartsBytesLimit)
        let head = try ProduceHead(&reader, version: header.apiVersion, into: &shared.produceParts)
        if waitForExchange(header, frame) { return .answered }
        let acks = head.acks
        produceTimeoutMs = head.timeoutMs
        var transaction: ProduceTransaction?
        var fault: ErrorCode? = acks >= -1 && acks <= 1 ? nil : .invalidRequiredAcks
        if fault == nil, let producer = transactionalProducer(shared.produceParts, frame) {
            switch begun(head, producer, header, frame) {
            case .success(let known): transaction = known
            case .failure(let failure): fault = failure.error
            }
        }
        if let transaction, addToTransaction(transaction, header, acks: acks, frame) { return .answered }
        let isLarge = frame.count > CodecLane.inlineLimit
        if isLarge, fault == nil, checkOnLane(header, acks: acks, transaction, frame, broker.topics.table) { return .answered }
        let appended = appendParts(
            header, acks: acks, shared.produceParts, frame, checked: nil, transaction: transaction, fault: fault)
        return appended ? .appended : .answered
    }

    /// Appends what was read, and queues the answer; true if an append refers to the frame. `checked` has the batches
    /// that were judged on the codec lane, nil where they are yet to be; `fault` is what is wrong with the request as a
    /// whole.
    func appendParts(
        _ header: FrameHeader, acks: Int16, _ parts: ContiguousArray<ProducePart>, _ frame: UnsafeMutableRawBufferPointer,
        checked: [CheckedBatch?]?, transaction: ProduceTransaction?, fault whole: ErrorCode?
    ) -> Bool {
        let version = header.apiVersion
        var answer = ProduceAnswer(correlationID: header.correlationID, version: version, acks: acks)
        answer.began = lastActive
        let now = broker.clock.now
        let number = firstAnswer + UInt64(answers.count)
        let acknowledgement: Acknowledgement = acks == 0 ? .none : acks == 1 ? .written : .committed
        let deadline = now + .milliseconds(Int64(produceTimeoutMs))
        let table = broker.topics.table
        var appended = false
        for (place, part) in parts.enumerated() {
            var result = ProduceResult(
                topicName: "", topicID: part.topicID, beginsTopic: part.beginsTopic, index: part.index)
            let topic = findTopic(part, frame, table, &result)
            if let whole {
                result.error = whole
                noteSequence(part, frame, result)
                _ = answer.add(result)
                continue
            }
            let token = AppendToken(answer: number, index: answer.count)
            var request = AppendRequest(
                acknowledgement, owner: acknowledgement == .none ? nil : self, token: token, deadline: deadline,
                transactions: transaction)
            request.precedingRefusal = precedingRefusal(part, frame, result)
            let progress = append(part, topic, frame, request, version: version, checked?[place], &result)
            noteSequence(part, frame, result)
            appended = appended || progress.refersToFrame
            if progress.isWaiting { answer.pending += 1 }
            _ = answer.add(result)
        }
        if limits != nil { answer.throttleTimeMs = throttleProduce(bytes: frame.count + 4) }
        _ = enqueue(answer)
        if answers.count == 1 { sendCompleteAnswers() }
        return appended
    }

    func findTopic(
        _ part: ProducePart, _ frame: UnsafeMutableRawBufferPointer, _ table: LocalTopicTable, _ result: inout ProduceResult
    ) -> LocalTopic? {
        if part.topicID != .zero || part.topicName.isEmpty, part.topicName.count == 0 {
            return table.topic(part.topicID)
        }
        let name = UnsafeRawBufferPointer(rebasing: frame[part.topicName.offset..<part.topicName.end])
        let topic = topicCache.topic(named: name, in: table)
        result.topicName = topic?.name ?? String(decoding: name, as: UTF8.self)
        return topic
    }

    private struct AppendProgress {
        /// The answer waits for this partition.
        var isWaiting = false
        /// What is to be written lies in the frame.
        var refersToFrame = false
    }

    private func append(
        _ part: ProducePart, _ topic: LocalTopic?, _ frame: UnsafeMutableRawBufferPointer, _ request: AppendRequest,
        version: Int16, _ checked: CheckedBatch?, _ result: inout ProduceResult
    ) -> AppendProgress {
        guard let topic, !topic.isInternal, let partition = topic.partition(part.index) else {
            let unknown: ErrorCode = version >= 13 && topic == nil ? .unknownTopicID : .unknownTopicOrPartition
            result.error = topic?.isInternal == true ? .invalidTopicException
                : topic?.hasFailed(part.index) == true ? .kafkaStorageError : unknown
            return AppendProgress()
        }
        let records = part.records ?? ByteRange(offset: 0, count: 0)
        var batch = UnsafeMutableRawBufferPointer(rebasing: frame[records.offset..<records.end])
        let validated: ValidatedBatch
        do throws(BatchRejection) {
            switch checked?.outcome {
            case .success(let known): validated = known
            case .failure(let rejection): throw rejection
            case nil:
                validated = try shared.validator.validate(
                    batch, config: partition.topicConfig, version: version, now: broker.clock.wallMilliseconds)
            }
        } catch {
            refused(error, partition, &result)
            return AppendProgress()
        }
        var owned: FrameBuffer?
        if validated.isRewritten {
            let buffer = checked?.rewritten ?? shared.pool.take(size: validated.header.totalSize)
            if checked == nil { buffer.fill(UnsafeRawBufferPointer(shared.validator.rewritten)) }
            batch = buffer.bytes
            owned = buffer
        } else {
            batch = UnsafeMutableRawBufferPointer(rebasing: batch[..<validated.header.totalSize])
        }
        let start = partition.append(batch, request)
        switch start {
        case .reserved(let baseOffset, let isFirst):
            result.baseOffset = baseOffset
            result.logAppendTime = validated.appendTime
            if let owned {
                shared.retain(owned)
                shared.recycle(owned)
            }
            // what another loop has reserved before, it may write after this loop's bytes are gone
            if isFirst || broker.host.loops.count > 1 { shared.touch(partition) }
            return AppendProgress(isWaiting: request.acknowledgement != .none, refersToFrame: owned == nil)
        case .duplicate(let baseOffset, let logAppendTime, let isWaiting):
            result.baseOffset = baseOffset
            result.logAppendTime = logAppendTime
            if !isWaiting { result.logStartOffset = partition.logStartOffset }
            if let owned { shared.recycle(owned) }
            return AppendProgress(isWaiting: isWaiting)
        case .refused(let error, let message):
            refused(error, message, partition, &result)
            if let owned { shared.recycle(owned) }
            return AppendProgress()
        }
    }

    private func refused(_ rejection: BatchRejection, _ partition: Partition, _ result: inout ProduceResult) {
        result.error = rejection.code
        result.message = rejection.answerMessage
        result.recordErrors = rejection.recordErrors
        // as Kafka, which tells it where it names the records
        if !rejection.recordErrors.isEmpty { result.logStartOffset = partition.logStartOffset }
        tellRefusal(of: partition, rejection.code, rejection.reason)
    }

    private func refused(_ error: ErrorCode, _ message: String?, _ partition: Partition, _ result: inout ProduceResult) {
        result.error = error
        result.message = message
        if error == .notLeaderOrFollower { result.currentLeader = partition.currentLeader }
        // a producer may give up here: what was expected is to be seen
        if error == .outOfOrderSequenceNumber { tellRefusal(of: partition, error, message ?? "") }
    }

    private func tellRefusal(of partition: Partition, _ error: ErrorCode, _ reason: String) {
        broker.log.requests.info(
            "a batch was refused", ("partition", partition.id.description), ("client", socket.peer.description),
            ("error", error.description), ("reason", reason))
    }
}
