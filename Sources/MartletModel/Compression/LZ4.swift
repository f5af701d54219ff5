internal import CLZ4
internal import MartletBasics

/// LZ4 in its frame format. Kafka's reader takes one frame of independent blocks without a dictionary, and so does this;
/// unlike Kafka's, it checks the content's checksum where there is one. What follows the frame is passed over.
extension CodecContexts {
    func unlz4(_ source: UnsafeRawBufferPointer, into output: inout ByteBuffer, limit: Int) throws(CompressionFault) {
        let context = readyLZ4Reader()
        var info = LZ4F_frameInfo_t()
        var position = source.count
        guard source.count > 0 else { throw .unreadable(.lz4, "no frame") }
        try checked(LZ4F_getFrameInfo(context, &info, source.baseAddress, &position))
        guard info.frameType == LZ4F_frame else { throw .unreadable(.lz4, "a frame to be skipped, where records should be") }
        guard info.blockMode == LZ4F_blockIndependent else {
            throw .unreadable(.lz4, "blocks that depend on one another are not served; send independent blocks")
        }
        guard info.dictID == 0 else { throw .unreadable(.lz4, "the frame needs a dictionary") }

        let start = output.count
        while true {
            let room = try nextStep(produced: output.count - start, hint: source.count * 3, limit: limit)
            let target = output.extend(room)
            var written = room
            var read = source.count - position
            let next = LZ4F_decompress(context, target, &written, source.baseAddress! + position, &read, nil)
            output.truncate(to: output.count - room + (LZ4F_isError(next) == 0 ? written : 0))
            try checked(next)
            position += read
            if next == 0 { break }
            if written < room, read == 0 || position == source.count {
                // all was read and there was room for more
                throw .unreadable(.lz4, "the frame ends early")
            }
        }
        guard output.count - start <= limit else { throw .tooLarge(limit: limit) }
    }

    func lz4(_ source: UnsafeRawBufferPointer, level: Int32, into output: inout ByteBuffer) {
        var preferences = LZ4F_preferences_t()
        preferences.frameInfo.blockSizeID = LZ4F_max64KB
        preferences.frameInfo.blockMode = LZ4F_blockIndependent
        preferences.autoFlush = 1
        // Kafka's default of 9 means the fast compressor; any other level the slow one, which begins at 3 here
        preferences.compressionLevel = level == CompressionCodec.lz4.defaultLevel ? 0 : min(max(level, 3), 12)

        let context = readyLZ4Writer()
        let start = output.count
        let bound = LZ4F_compressBound(source.count, &preferences) + Int(LZ4F_HEADER_SIZE_MAX)
        let target = output.extend(bound)
        var written = LZ4F_compressBegin(context, target, bound, &preferences)
        precondition(LZ4F_isError(written) == 0, "a frame begins in the room asked for")
        if source.count > 0 {
            let body = LZ4F_compressUpdate(
                context, target + written, bound - written, source.baseAddress, source.count, nil)
            precondition(LZ4F_isError(body) == 0, "lz4 compresses into the room it asked for")
            written += body
        }
        let tail = LZ4F_compressEnd(context, target + written, bound - written, nil)
        precondition(LZ4F_isError(tail) == 0, "a frame ends in the room asked for")
        output.truncate(to: start + written + tail)
    }

    @discardableResult @inline(__always)
    private func checked(_ status: Int) throws(CompressionFault) -> Int {
        guard LZ4F_isError(status) == 0 else {
            throw .unreadable(.lz4, String(cString: LZ4F_getErrorName(status)))
        }
        return status
    }

    private func readyLZ4Reader() -> OpaquePointer {
        if let lz4Reader {
            LZ4F_resetDecompressionContext(lz4Reader)
            return lz4Reader
        }
        let status = LZ4F_createDecompressionContext(&lz4Reader, UInt32(LZ4F_VERSION))
        precondition(LZ4F_isError(status) == 0, "lz4 has memory for a reader")
        return lz4Reader!
    }

    private func readyLZ4Writer() -> OpaquePointer {
        if let lz4Writer { return lz4Writer }
        let status = LZ4F_createCompressionContext(&lz4Writer, UInt32(LZ4F_VERSION))
        precondition(LZ4F_isError(status) == 0, "lz4 has memory for a writer")
        return lz4Writer!
    }
}
