package import MartletBasics

/// Arrays of UUIDs, without their count.
extension ByteReader {
    package mutating func uuidArray(count: Int) throws(DecodingFault) -> [UUID] {
        var values: [UUID] = []
        values.reserveCapacity(min(count, Self.elementsReservedLimit))
        for _ in 0..<count { values.append(try uuid()) }
        return values
    }
}

extension ByteBuffer {
    package mutating func uuidArray(_ values: [UUID]) {
        reserve(values.count * 16)
        let elements = values.span
        for index in elements.indices { uuid(elements[index]) }
    }
}
