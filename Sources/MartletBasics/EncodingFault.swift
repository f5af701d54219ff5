/// Why a value cannot be written in the version asked for. Every case is a mistake of ours or of whoever gave us the
/// value, never of the peer that would have read it.
public enum EncodingFault: Error, Equatable, CustomStringConvertible {
    /// The message has no such version.
    case unsupportedVersion(String, version: Int16)
    /// The field holds something, and the version has no place for it.
    case unsupportedField(String, version: Int16)
    /// Null in a field that may not be null in this version.
    case unexpectedNull(String)
    /// A string, array or run of bytes whose length does not fit its field.
    case tooLong(String, count: Int)
    /// Bytes that lie in a frame, and the frame was not given, or they are not inside it.
    case bytesWithoutFrame(String)

    public var description: String {
        switch self {
        case .unsupportedVersion(let name, let version): "\(name) has no version \(version); choose one that it has"
        case .unsupportedField(let name, let version):
            "\(name) cannot be said in version \(version); leave it at its default or choose a version that has it"
        case .unexpectedNull(let name): "\(name) may not be null in this version; give it a value"
        case .tooLong(let name, let count): "\(name) is \(count) long, more than the protocol can say; shorten it"
        case .bytesWithoutFrame(let name): "\(name) lies in a frame that was not given; give it or copy the bytes first"
        }
    }
}
