import MartletBasics
import MartletClient
import MartletModel

/// How a record becomes a line.
struct RecordFormat: Sendable {
    private let isJSON: Bool
    private let hasKeys: Bool
    private let hasHeaders: Bool
    private let hasOffsets: Bool
    private let hasTimestamps: Bool
    private let separator: [UInt8]

    init(_ arguments: CommandLineArguments) {
        isJSON = arguments.has("json")
        hasKeys = arguments.has("keys")
        hasHeaders = arguments.has("headers")
        hasOffsets = arguments.has("offsets")
        hasTimestamps = arguments.has("timestamps")
        separator = Array((arguments.value("separator") ?? "\t").utf8)
    }

    func write(_ record: FetchedRecord, of partition: TopicPartition, to output: StandardOutput) {
        if isJSON {
            output.append(RecordJSON.line(record, of: partition).bytes)
        } else {
            if hasTimestamps { field(record.timestamp < 0 ? "-" : WallTime.text(record.timestamp), output) }
            if hasOffsets {
                field("\(partition.partition)", output)
                field("\(record.offset)", output)
            }
            if hasHeaders {
                headers(record, output)
                output.append(separator)
            }
            if hasKeys {
                bytes(record.key, output)
                output.append(separator)
            }
            bytes(record.value, output)
        }
        output.append(CollectionOfOne(UInt8(ascii: "\n")))
    }

    private func field(_ text: String, _ output: StandardOutput) {
        output.append(text)
        output.append(separator)
    }

    private func bytes(_ bytes: UnsafeRawBufferPointer?, _ output: StandardOutput) {
        if let bytes { output.append(bytes) } else { output.append("null") }
    }

    private func headers(_ record: FetchedRecord, _ output: StandardOutput) {
        var cursor = record.headers
        var isFirst = true
        while let header = cursor.next() {
            if !isFirst { output.append(",") }
            isFirst = false
            output.append(record.cursor.bytes(in: header.name))
            output.append("=")
            bytes(record.cursor.bytes(in: header.value), output)
        }
    }
}
