/// Columns for people: as wide as what stands in them, two blanks between them.
///
/// What stands in a cell came from somewhere else: control characters are shown, not obeyed. Every character counts as
/// one column, so wide scripts do not line up.
package struct TextTable: Sendable {
    package enum Alignment: Sendable {
        case left, right
    }

    package struct Column: Sendable {
        package var title: String
        package var alignment: Alignment

        package init(_ title: String, _ alignment: Alignment = .left) {
            self.title = title
            self.alignment = alignment
        }
    }

    private let columns: [Column]
    private var rows: [[String]] = []

    package init(_ columns: [Column]) { self.columns = columns }

    package var isEmpty: Bool { rows.isEmpty }

    package mutating func add(_ cells: String...) { add(cells) }

    package mutating func add(_ cells: [String]) {
        precondition(cells.count == columns.count, "a row has a cell for each column")
        rows.append(cells.map(Self.shown))
    }

    /// The lines, each with its end. `titled` sets off the first where a terminal can.
    package func text(isStyled: Bool = false) -> String {
        let widths = columns.indices.map { index in
            rows.reduce(columns[index].title.count) { max($0, $1[index].count) }
        }
        let head = line(columns.map(\.title), widths)
        var text = (isStyled ? "\u{1B}[1m\(head)\u{1B}[0m" : head) + "\n"
        for row in rows { text += line(row, widths) + "\n" }
        return text
    }

    private func line(_ cells: [String], _ widths: [Int]) -> String {
        var text = ""
        for (index, cell) in cells.enumerated() {
            let blanks = String(repeating: " ", count: widths[index] - cell.count)
            let isLast = index == cells.count - 1
            switch columns[index].alignment {
            case .left: text += cell + (isLast ? "" : blanks + "  ")
            case .right: text += blanks + cell + (isLast ? "" : "  ")
            }
        }
        return String(text.reversed().drop { $0 == " " }.reversed())
    }

    /// A text with its control characters written out; a dash for nothing.
    package static func shown(_ text: String) -> String {
        if text.isEmpty { return "-" }
        let isPlain = text.unicodeScalars.allSatisfy { !isControl($0) }
        if isPlain { return text }
        var shown = ""
        for scalar in text.unicodeScalars {
            if isControl(scalar) {
                let digits = String(scalar.value, radix: 16)
                shown += "\\u{\(digits)}"
            } else {
                shown.unicodeScalars.append(scalar)
            }
        }
        return shown
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
    }
}
