/// The path or name of a node, compared and hashed by its UTF-8 bytes. Swift's own strings take "é" in one and in two
/// code points for the same; ZooKeeper, and a consumer group named so, do not.
package struct NodePath: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let string: String

    package init(_ string: String) {
        var contiguous = string
        contiguous.makeContiguousUTF8()
        self.string = contiguous
    }

    package static let root = NodePath("/")

    package var description: String { string }

    package static func == (a: NodePath, b: NodePath) -> Bool { a.string.utf8.elementsEqual(b.string.utf8) }

    package static func < (a: NodePath, b: NodePath) -> Bool { a.string.utf8.lexicographicallyPrecedes(b.string.utf8) }

    package func hash(into hasher: inout Hasher) {
        let hashed: Void? = string.utf8.withContiguousStorageIfAvailable {
            hasher.combine(bytes: UnsafeRawBufferPointer($0))
        }
        precondition(hashed != nil, "a path's bytes lie in one piece")
    }

    /// The path without its last name, `/` for a child of the root; nil for the root.
    package var parent: NodePath? {
        guard self != .root, let slash = string.utf8.lastIndex(of: UInt8(ascii: "/")) else { return nil }
        return slash == string.startIndex ? .root : NodePath(String(string[..<slash]))
    }

    /// The last name; empty for the root.
    package var name: NodePath {
        guard let slash = string.utf8.lastIndex(of: UInt8(ascii: "/")) else { return self }
        return NodePath(String(string[string.utf8.index(after: slash)...]))
    }

    package func child(_ name: NodePath) -> NodePath {
        NodePath(self == .root ? "/" + name.string : string + "/" + name.string)
    }

    /// Why ZooKeeper refuses this path; nil where it does not.
    package static func fault(in path: String) -> String? {
        guard path.utf8.first == UInt8(ascii: "/") else {
            return path.isEmpty ? "a path has at least one character" : "a path starts with /"
        }
        if path.utf8.count == 1 { return nil }
        var segment = 0  // code points since the last slash
        var dots = 0
        for scalar in path.unicodeScalars.dropFirst() {
            if scalar == "/" {
                if let fault = fault(ofSegment: segment, dots: dots) { return fault }
                segment = 0
                dots = 0
                continue
            }
            if isRefused(scalar) {
                return "the character U+\(String(scalar.value, radix: 16)) is not allowed in a path"
            }
            segment += 1
            if scalar == "." { dots += 1 }
        }
        return segment == 0 ? "a path does not end with /" : fault(ofSegment: segment, dots: dots)
    }

    private static func fault(ofSegment count: Int, dots: Int) -> String? {
        if count == 0 { return "a path has no empty names" }
        return count == dots && count <= 2 ? "a path has no relative names" : nil
    }

    /// ZooKeeper's ranges, their odd ends included (its comparisons leave out the last of each). It looks at UTF-16
    /// units, and takes every low surrogate for a refused character, so nothing beyond the basic plane passes.
    private static func isRefused(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x00...0x1E, 0x80...0x9E, 0xE000...0xF8FE, 0xFFF1...0xFFFE: true
        case 0x1_0000...: true
        default: false
        }
    }
}
