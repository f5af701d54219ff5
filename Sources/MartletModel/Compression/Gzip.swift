internal import CZlib
internal import MartletBasics

/// gzip, RFC 1952, by zlib.
///
/// A stream may have several members, whose contents follow one another. What comes after the last and does not begin as
/// a member is passed over, as Java's reader does.
extension CodecContexts {
    private static let maximumWindowAndGzipHeader: Int32 = 15 + 16
    private static let memoryLevel: Int32 = 8

    func gunzip(_ source: UnsafeRawBufferPointer, into output: inout ByteBuffer, limit: Int) throws(CompressionFault) {
        let stream = readyInflater()
        let start = output.count
        stream.pointee.next_in = bytes(source)
        stream.pointee.avail_in = UInt32(source.count)
        while true {
            let produced = output.count - start
            let room = try nextStep(produced: produced, hint: source.count * 3, limit: limit)
            stream.pointee.next_out = output.extend(room).assumingMemoryBound(to: UInt8.self)
            stream.pointee.avail_out = UInt32(room)
            let status = inflate(stream, Z_NO_FLUSH)
            let unused = Int(stream.pointee.avail_out)
            output.truncate(to: output.count - unused)
            if status == Z_STREAM_END {
                guard beginsMember(stream) else { break }
                inflateReset(stream)
                continue
            }
            guard status == Z_OK || status == Z_BUF_ERROR else {
                throw .unreadable(.gzip, stream.pointee.msg.map { String(cString: $0) } ?? "zlib's error \(status)")
            }
            // room was left and the stream wants more: the bytes end in its middle
            if unused > 0 { throw .unreadable(.gzip, "the stream ends early") }
        }
        guard output.count - start <= limit else { throw .tooLarge(limit: limit) }
    }

    func gzip(_ source: UnsafeRawBufferPointer, level: Int32, into output: inout ByteBuffer) {
        let stream = readyDeflater(level: level)
        stream.pointee.next_in = bytes(source)
        stream.pointee.avail_in = UInt32(source.count)
        let room = Int(deflateBound(stream, UInt(source.count)))
        stream.pointee.next_out = output.extend(room).assumingMemoryBound(to: UInt8.self)
        stream.pointee.avail_out = UInt32(room)
        let status = deflate(stream, Z_FINISH)
        precondition(status == Z_STREAM_END, "zlib compresses into the room it asked for")
        output.truncate(to: output.count - Int(stream.pointee.avail_out))
    }

    private func beginsMember(_ stream: UnsafeMutablePointer<z_stream>) -> Bool {
        guard stream.pointee.avail_in >= 3, let next = stream.pointee.next_in else { return false }
        return next[0] == 0x1F && next[1] == 0x8B && next[2] == 8
    }

    private func readyInflater() -> UnsafeMutablePointer<z_stream> {
        if let inflater {
            inflateReset(inflater)
            return inflater
        }
        let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        stream.initialize(to: z_stream())
        let size = Int32(MemoryLayout<z_stream>.size)
        let status = inflateInit2_(stream, Self.maximumWindowAndGzipHeader, ZLIB_VERSION, size)
        precondition(status == Z_OK, "zlib has memory for a reader")
        inflater = stream
        return stream
    }

    private func readyDeflater(level: Int32) -> UnsafeMutablePointer<z_stream> {
        let wanted = (-1...9).contains(level) ? level : -1
        if let deflater {
            if deflaterLevel == wanted {
                deflateReset(deflater)
                return deflater
            }
            deflateEnd(deflater)
            deflater.deallocate()
        }
        let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        stream.initialize(to: z_stream())
        let status = deflateInit2_(
            stream, wanted, Z_DEFLATED, Self.maximumWindowAndGzipHeader, Self.memoryLevel, Z_DEFAULT_STRATEGY,
            ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
        precondition(status == Z_OK, "zlib has memory for a writer")
        deflater = stream
        deflaterLevel = wanted
        return stream
    }

    /// zlib only reads from `next_in`, though its type says otherwise.
    private func bytes(_ source: UnsafeRawBufferPointer) -> UnsafeMutablePointer<UInt8>? {
        source.baseAddress.map { UnsafeMutablePointer(mutating: $0.assumingMemoryBound(to: UInt8.self)) }
    }
}
