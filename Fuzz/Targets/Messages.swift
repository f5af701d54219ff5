import MartletBasics
import MartletLog
import MartletModel
import MartletWire

/// The messages by their API's key; the list is generated from the schemas.
private let requestsByKey = Dictionary(uniqueKeysWithValues: MessageList.requests.map { ($0.apiKey, $0) })
let answersByKey = Dictionary(uniqueKeysWithValues: MessageList.responses.map { ($0.apiKey, $0) })

func fuzzRequest(_ frame: UnsafeRawBufferPointer) {
    var reader = ByteReader(frame)
    guard let header = try? RequestHeader.decode(from: &reader), let request = requestsByKey[header.apiKey] else { return }
    check(request, &reader, version: header.apiVersion, frame: frame)
    if header.api?.versions.contains(header.apiVersion) == true { checkHeader(header) }
}

private func checkHeader(_ header: RequestHeader) {
    var buffer = ByteBuffer()
    // a client id can be longer than it was when what was no UTF-8 in it was replaced
    guard (try? header.encode(into: &buffer)) != nil else { return }
    var reader = ByteReader(buffer.bytes)
    guard let again = try? RequestHeader.decode(from: &reader), again == header, reader.isAtEnd else {
        preconditionFailure("a request header is read otherwise than it was written: \(header)")
    }
}

/// Key and version of what was asked, then the frame.
func fuzzAnswer(_ input: inout FuzzInput) {
    let (key, version) = (input.int16(), input.int16())
    let frame = input.rest()
    guard let api = ApiKey(rawValue: key), let answer = answersByKey[key] else { return }
    var reader = ByteReader(frame)
    guard (try? ResponseHeader.decode(from: &reader, version: api.responseHeaderVersion(version))) != nil else { return }
    check(answer, &reader, version: version, frame: frame)
}

/// Whatever a decoder accepts it also accepts in its own words, as the same value.
private func check<Message: WireMessage>(
    _: Message.Type, _ reader: inout ByteReader, version: Int16, frame: UnsafeRawBufferPointer
) {
    guard var message = try? Message.decode(from: &reader, version: version) else { return }
    var first = ByteBuffer()
    // a string that was repaired can have become too long for its length
    guard (try? message.encode(into: &first, version: version, frame: frame)) != nil else { return }
    message.ownBytes(of: frame)
    if let answer = message as? any WireResponse {
        var errors = ErrorCodes()
        answer.collectErrors(&errors)
    }
    var again = ByteReader(first.bytes)
    guard var second = try? Message.decode(from: &again, version: version), again.isAtEnd else {
        preconditionFailure("\(Message.self) \(version): what was written cannot be read")
    }
    second.ownBytes(of: first.bytes)
    var bytes = ByteBuffer()
    guard (try? second.encode(into: &bytes, version: version, frame: nil)) != nil, bytes.array == first.array else {
        preconditionFailure("\(Message.self) \(version): what was read is written otherwise")
    }
}

/// The version, then the request: what is read by hand must be what the generated decoder reads.
func fuzzProduce(_ input: inout FuzzInput) {
    let version = 3 + Int16(input.byte() % 11)
    let body = input.rest()
    var parts: ContiguousArray<ProducePart> = []
    var reader = ByteReader(body)
    let head = try? ProduceHead(&reader, version: version, into: &parts)
    var generated = ByteReader(body)
    let request = try? ProduceRequest.decode(from: &generated, version: version)
    guard let head else {
        return precondition(request == nil || isOverBudget(body), "a produce request is refused by hand only")
    }
    guard let request else { return }
    precondition(
        head.acks == request.acks && head.timeoutMs == request.timeoutMs, "acks and timeout are read otherwise by hand")
    let flat = request.topicData.flatMap { topic in topic.partitionData.map { (topic, $0) } }
    precondition(flat.count == parts.count, "\(parts.count) partitions by hand, \(flat.count) generated")
    for (part, (topic, partition)) in zip(parts, flat) {
        precondition(part.index == partition.index && part.topicID == topic.topicID, "a partition is read otherwise by hand")
        precondition(part.records?.count == partition.records?.count, "records are read otherwise by hand")
        precondition(
            String(decoding: reader.bytes(in: part.topicName), as: UTF8.self) == topic.name, "a name is read otherwise by hand")
    }
}

/// The two count the memory of elements by what each makes of them: a request of very many may be within one bound only.
private func isOverBudget(_ body: UnsafeRawBufferPointer) -> Bool { body.count > 100_000 }

/// Which record, then its bytes with their prefix; or a key and a value as `martlet log dump` shows them.
func fuzzRecord(_ input: inout FuzzInput) {
    let choice = Int(input.byte())
    if choice < MessageList.records.count {
        checkRecord(MessageList.records[choice], input.rest())
    } else {
        let kind: CoordinatorRecords = choice % 2 == 0 ? .groups : .transactions
        let key = input.take(Int(input.byte()))
        _ = kind.decode(key: key, value: [UInt8](input.rest())).map { _ = $0.value.bytes }
    }
}

private func checkRecord<Record: VersionedRecord>(_: Record.Type, _ bytes: UnsafeRawBufferPointer) {
    var reader = ByteReader(bytes)
    guard let prefix = try? reader.int16() else { return }
    let version = Record.keyPrefix == nil ? prefix : Record.versions.lowerBound
    reader = ByteReader(bytes)
    guard let record = try? Record.decodePrefixed(from: &reader) else { return }
    guard let first = try? record.prefixedBytes(version: version) else { return }
    guard let again = try? Record(prefixed: first), let second = try? again.prefixedBytes(version: version) else {
        preconditionFailure("\(Record.self) \(version): what was written cannot be read")
    }
    precondition(first == second, "\(Record.self) \(version): what was read is written otherwise")
}
