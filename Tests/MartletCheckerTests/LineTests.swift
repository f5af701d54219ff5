import MartletBasics
import MartletChecker
import Testing

@Suite struct Lines {
    private func fault(_ text: String) -> String? {
        Array(text.utf8).withUnsafeBytes { bytes in
            do throws(HistoryFault) {
                _ = try HistoryLines.events(in: bytes)
                return nil
            } catch {
                return error.description
            }
        }
    }

    @Test func aLineThatIsNoEventIsNamed() throws {
        #expect(fault("{\"at\":1,\"event\":\"ended\",\"how\":\"kill\"}\n\n[]\n") == "line 3: an event is an object")
        #expect(fault("{\"at\":1,\"event\":\"ended\",\"how\":\"murder\"}") == "line 1: \"how\" is to be stop, kill or powerCut")
        #expect(fault("{\"at\":1,\"event\":\"sent\"}") == "line 1: no event is called \"sent\"")
        #expect(fault("{\"at\":1.5,\"event\":\"ended\",\"how\":\"kill\"}") == "line 1: \"at\" is to be a whole number")
        #expect(fault("{\"at\":1,")?.hasPrefix("line 1: ") == true)
        let send = #"{"at":1,"event":"send","operation":1,"producer":"p","topic":"t","partition":0,"values":["a"]"#
        #expect(fault(send + ",\"acks\":-1,\"keys\":[]}") == nil)
        #expect(fault(send + ",\"acks\":-1,\"keys\":[\"k\",\"l\"]}") == "line 1: \"keys\" is to be as many as there are values")
        #expect(
            fault(send + ",\"acks\":-1,\"keys\":[\"k\"],\"tombstones\":[1]}")
                == "line 1: \"tombstones\" is to be a list of indices of values, or left out")
        #expect(fault("{\"at\":1,\"event\":\"broken\",\"reason\":\"no answer\"}") == nil)
    }

    /// As of a library that hands out records one by one, long after they were fetched: no look at the partition's end.
    @Test func whoSawRecordsAndNoHighWatermarkHasNotSeenTheEnd() throws {
        let lines = """
            {"at":1,"event":"send","operation":1,"producer":"p","topic":"t","partition":0,"values":["a","b"],"acks":-1}
            {"at":2,"event":"accepted","operation":1,"offset":0}
            {"at":4,"event":"saw","consumer":"c","topic":"t","partition":0,"asked":3,"from":0,"records":[[0,"a"]]}
            """
        let events = try Array(lines.utf8).withUnsafeBytes { bytes in try HistoryLines.events(in: bytes) }
        #expect(Checks.judge(events).isEmpty)
        #expect(events.map(\.line).joined(separator: "\n").contains("highWatermark") == false)
    }

    @Test func linesOfSeveralFilesComeTogetherByTime() throws {
        let place = Place("orders", 0)
        let read = HistoryEvent(30, .listed(consumer: "c", place: place, asked: 25, start: nil, end: 0))
        let sent = HistoryEvent(
            10, .send(SentBatch(operation: 1, producer: "p", place: place, values: ["a"], acks: -1, isIdempotent: false)))
        let told = HistoryEvent(20, .told(operation: 1, .accepted(at: 0)))
        #expect(Checks.judge([read, sent, told]).map(\.kind) == [.staleRead])
    }
}
