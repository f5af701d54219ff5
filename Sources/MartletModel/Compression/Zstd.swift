internal import CZstd
internal import MartletBasics

/// zstd frames, with or without their content's size in the header, one or several.
extension CodecContexts {
    /// A declared size up to this many times the bytes that are there is allotted at once.
    private static let believedExpansion = 16

    func unzstd(_ source: UnsafeRawBufferPointer, into output: inout ByteBuffer, limit: Int) throws(CompressionFault) {
        guard source.count > 0 else { throw .unreadable(.zstd, "no frame") }
        let context = readyZstdReader()
        defer { dropZstdReaderIfLarge() }
        if let size = believableSize(source) {
            guard size <= limit else { throw .tooLarge(limit: limit) }
            let target = output.extend(size)
            try checked(ZSTD_decompressDCtx(context, target, size, source.baseAddress, source.count))
            return
        }
        let start = output.count
        var input = ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
        while true {
            let room = try nextStep(produced: output.count - start, hint: source.count * 3, limit: limit)
            var target = ZSTD_outBuffer(dst: output.extend(room), size: room, pos: 0)
            let status = ZSTD_decompressStream(context, &target, &input)
            output.truncate(to: output.count - room + target.pos)
            try checked(status)
            if status == 0, input.pos == input.size { break }
            // room was left, all was read, and the frame wants more
            if target.pos < room, input.pos == input.size { throw .unreadable(.zstd, "the frame ends early") }
        }
        guard output.count - start <= limit else { throw .tooLarge(limit: limit) }
    }

    func zstd(_ source: UnsafeRawBufferPointer, level: Int32, into output: inout ByteBuffer) {
        if zstdWriter == nil { zstdWriter = ZSTD_createCCtx() }
        guard let context = zstdWriter else { preconditionFailure("zstd has memory for a writer") }
        let start = output.count
        let bound = ZSTD_compressBound(source.count)
        let written = ZSTD_compressCCtx(
            context, output.extend(bound), bound, source.baseAddress, source.count,
            min(max(level, ZSTD_minCLevel()), ZSTD_maxCLevel()))
        precondition(ZSTD_isError(written) == 0, "zstd compresses into the room it asked for")
        output.truncate(to: start + written)
        if ZSTD_sizeof_CCtx(context) > Self.retainedBytesLimit {
            ZSTD_freeCCtx(context)
            zstdWriter = nil
        }
    }

    /// What a single frame declares to hold, if that is no wild claim. Then it can be read in one go, without a window.
    private func believableSize(_ source: UnsafeRawBufferPointer) -> Int? {
        let declared = ZSTD_getFrameContentSize(source.baseAddress, source.count)
        // the two highest numbers mean "not said" and "no frame"
        guard declared > 0, declared <= UInt64(max(source.count * Self.believedExpansion, Self.outputStep)),
            ZSTD_findFrameCompressedSize(source.baseAddress, source.count) == source.count
        else { return nil }
        return Int(declared)
    }

    @inline(__always)
    private func checked(_ status: Int) throws(CompressionFault) {
        guard ZSTD_isError(status) == 0 else {
            throw .unreadable(.zstd, String(cString: ZSTD_getErrorName(status)))
        }
    }

    private func readyZstdReader() -> OpaquePointer {
        if let zstdReader {
            ZSTD_DCtx_reset(zstdReader, ZSTD_reset_session_only)
            return zstdReader
        }
        guard let made = ZSTD_createDCtx() else { preconditionFailure("zstd has memory for a reader") }
        ZSTD_DCtx_setParameter(made, ZSTD_d_windowLogMax, Self.zstdWindowLogLimit)
        zstdReader = made
        return made
    }

    private func dropZstdReaderIfLarge() {
        guard let zstdReader, ZSTD_sizeof_DCtx(zstdReader) > Self.retainedBytesLimit else { return }
        ZSTD_freeDCtx(zstdReader)
        self.zstdReader = nil
    }
}
