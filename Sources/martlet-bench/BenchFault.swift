/// Why a case could not be measured: what the server said, or what is wrong with how the program was called.
struct BenchFault: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}
