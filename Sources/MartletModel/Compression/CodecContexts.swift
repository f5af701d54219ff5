package import MartletBasics
internal import CLZ4
internal import CZlib
internal import CZstd

/// Why compressed bytes could not be read.
package enum CompressionFault: Error, Equatable {
    /// The bytes are not what the codec writes, or end early; the text says what the codec objected to.
    case unreadable(CompressionCodec, String)
    /// More than `limit` bytes would have come out; none of them counts.
    case tooLarge(limit: Int)
}

extension CompressionFault: CustomStringConvertible {
    package var description: String {
        switch self {
        case .unreadable(let codec, let reason): "the bytes cannot be read as \(codec): \(reason)"
        case .tooLarge(let limit): "decompressed, the records are larger than the limit of \(limit) bytes"
        }
    }
}

/// The working memory of the codecs, kept between batches because making it anew costs more than a small batch.
///
/// It belongs to one thread at a time: a loop has one, and so has each thread of a lane. Contexts are made when first
/// needed. One that grew beyond `retainedBytesLimit` on a single batch is given back after it.
package final class CodecContexts {
    /// What a codec may keep between batches.
    package static let retainedBytesLimit = 16 * 1024 * 1024
    /// The largest window a zstd frame may ask for, 2^27 bytes: what level 22 uses, and the most Kafka's own reader takes.
    package static let zstdWindowLogLimit: Int32 = 27
    /// What is asked of an output buffer at a time, beyond what it has doubled to.
    static let outputStep = 64 * 1024

    var inflater: UnsafeMutablePointer<z_stream>?
    var deflater: UnsafeMutablePointer<z_stream>?
    var deflaterLevel: Int32 = 0
    var lz4Reader: OpaquePointer?
    var lz4Writer: OpaquePointer?
    var zstdReader: OpaquePointer?
    var zstdWriter: OpaquePointer?

    package init() {}

    deinit {
        if let inflater {
            inflateEnd(inflater)
            inflater.deallocate()
        }
        if let deflater {
            deflateEnd(deflater)
            deflater.deallocate()
        }
        LZ4F_freeDecompressionContext(lz4Reader)
        LZ4F_freeCompressionContext(lz4Writer)
        ZSTD_freeDCtx(zstdReader)
        ZSTD_freeCCtx(zstdWriter)
    }

    /// Appends what `source` holds, decompressed, to `output`. On a fault `output` is as it was.
    ///
    /// Sizes that the bytes declare are not believed: memory grows with what really comes out (or, where a size is needed
    /// at once, by no more than the format can pack into the bytes that are there), and never beyond `limit`.
    package func decompress(
        _ source: UnsafeRawBufferPointer, codec: CompressionCodec, into output: inout ByteBuffer, limit: Int
    ) throws(CompressionFault) {
        precondition(limit >= 0 && limit < Int(Int32.max), "the limit of decompressed bytes is below 2 GiB")
        precondition(source.count <= Int(Int32.max), "what is decompressed came in a batch, whose length is an int32")
        let start = output.count
        do throws(CompressionFault) {
            switch codec {
            case .none:
                guard source.count <= limit else { throw CompressionFault.tooLarge(limit: limit) }
                output.append(source)
            case .gzip: try gunzip(source, into: &output, limit: limit)
            case .snappy: try unsnap(source, into: &output, limit: limit)
            case .lz4: try unlz4(source, into: &output, limit: limit)
            case .zstd: try unzstd(source, into: &output, limit: limit)
            }
        } catch {
            output.truncate(to: start)
            throw error
        }
    }

    /// Appends `source`, compressed as Kafka's Java producer would (its framing of snappy, its lz4 blocks of 64 KiB), to
    /// `output`. The level is that of the topic's setting; snappy has none.
    package func compress(
        _ source: UnsafeRawBufferPointer, codec: CompressionCodec, level: Int32, into output: inout ByteBuffer
    ) {
        precondition(source.count <= Int(Int32.max), "what is compressed becomes a batch, whose length is an int32")
        switch codec {
        case .none: output.append(source)
        case .gzip: gzip(source, level: level, into: &output)
        case .snappy: snap(source, into: &output)
        case .lz4: lz4(source, level: level, into: &output)
        case .zstd: zstd(source, level: level, into: &output)
        }
    }

    /// How many bytes to offer a codec next, `produced` having come out so far: doubling, and at most one beyond the
    /// limit, which tells output that is exactly as large as allowed from output that is larger.
    @inline(__always)
    func nextStep(produced: Int, hint: Int, limit: Int) throws(CompressionFault) -> Int {
        guard produced <= limit else { throw .tooLarge(limit: limit) }
        return min(max(Self.outputStep, max(produced, hint)), limit + 1 - produced)
    }
}

extension CompressionCodec {
    /// The level that Kafka uses where none is set.
    package var defaultLevel: Int32 {
        switch self {
        case .none, .snappy: 0
        case .gzip: -1
        case .lz4: 9
        case .zstd: 3
        }
    }
}

extension TopicConfig {
    /// The level set for a codec.
    package func level(of codec: CompressionCodec) -> Int32 {
        switch codec {
        case .none, .snappy: 0
        case .gzip: gzipLevel
        case .lz4: lz4Level
        case .zstd: zstdLevel
        }
    }
}
