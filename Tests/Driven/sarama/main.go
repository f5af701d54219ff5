// Drives a broker with Sarama, as Debian 12 packages it (1.22), and prints one line a test:
// "ok NAME" or "FAIL NAME: what went wrong".
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/Shopify/sarama"
)

var address string

func configuration() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V2_2_0_0
	c.ClientID = "sarama-driven"
	c.Producer.Return.Successes = true
	c.Producer.Return.Errors = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Consumer.Return.Errors = true
	return c
}

// check ends the test that called it.
type failure string

func check(ok bool, format string, values ...interface{}) {
	if !ok {
		panic(failure(fmt.Sprintf(format, values...)))
	}
}

func must(err error) { check(err == nil, "%v", err) }

func create(topic string, partitions int32, configs map[string]string) {
	admin, err := sarama.NewClusterAdmin([]string{address}, configuration())
	must(err)
	defer admin.Close()
	entries := map[string]*string{}
	for name := range configs {
		value := configs[name]
		entries[name] = &value
	}
	must(admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: entries}, false))
}

// produce sends all asynchronously and returns the offsets in the order of sending.
func produce(c *sarama.Config, messages []*sarama.ProducerMessage) []int64 {
	producer, err := sarama.NewAsyncProducer([]string{address}, c)
	must(err)
	defer producer.Close()
	for i, m := range messages {
		m.Metadata = i
	}
	go func() {
		for _, m := range messages {
			producer.Input() <- m
		}
	}()
	offsets := make([]int64, len(messages))
	for range messages {
		select {
		case m := <-producer.Successes():
			offsets[m.Metadata.(int)] = m.Offset
		case e := <-producer.Errors():
			must(e.Err)
		case <-time.After(30 * time.Second):
			check(false, "no word of a record for 30 s")
		}
	}
	return offsets
}

func consume(c *sarama.Config, topic string, count int) []*sarama.ConsumerMessage {
	consumer, err := sarama.NewConsumer([]string{address}, c)
	must(err)
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	must(err)
	defer partition.Close()
	var got []*sarama.ConsumerMessage
	for len(got) < count {
		select {
		case m := <-partition.Messages():
			got = append(got, m)
		case e := <-partition.Errors():
			must(e.Err)
		case <-time.After(20 * time.Second):
			check(false, "%d of %d messages, then none for 20 s", len(got), count)
		}
	}
	return got
}

func rising(offsets []int64) bool {
	for i, o := range offsets {
		if o != int64(i) {
			return false
		}
	}
	return true
}

func topicsAreCreatedDescribedAndDeleted() {
	create("made", 3, nil)
	admin, err := sarama.NewClusterAdmin([]string{address}, configuration())
	must(err)
	defer admin.Close()
	described, err := admin.DescribeTopics([]string{"made"})
	must(err)
	check(len(described) == 1 && len(described[0].Partitions) == 3, "described as %v", described)
	client, err := sarama.NewClient([]string{address}, configuration())
	must(err)
	defer client.Close()
	controller, err := client.Controller()
	must(err)
	check(len(client.Brokers()) == 1 && controller.ID() == client.Brokers()[0].ID(), "%d brokers, controller %d", len(client.Brokers()), controller.ID())
	err = admin.CreateTopic("made", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false)
	check(err != nil && strings.Contains(err.Error(), "exists"), "created twice: %v", err)
	must(admin.DeleteTopic("made"))
	time.Sleep(200 * time.Millisecond)
	described, err = admin.DescribeTopics([]string{"other"})
	must(err)
}

func everyCodecWithKeysHeadersAndNulls() {
	codecs := []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4}
	for _, codec := range codecs {
		topic := "codec-" + codec.String()
		create(topic, 1, nil)
		c := configuration()
		c.Producer.Compression = codec
		c.Producer.Flush.Messages = 50
		c.Producer.Flush.Frequency = 20 * time.Millisecond
		var messages []*sarama.ProducerMessage
		for i := 0; i < 200; i++ {
			m := &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(strings.Repeat("x", i))}
			if i%2 == 0 {
				m.Key = sarama.StringEncoder("key " + strconv.Itoa(i))
			}
			if i%3 == 0 {
				m.Headers = []sarama.RecordHeader{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("a"), Value: []byte{0xff}}}
			}
			if i%5 == 0 {
				m.Value = nil
			}
			messages = append(messages, m)
		}
		check(rising(produce(c, messages)), "%v: offsets out of order", codec)
		for i, m := range consume(configuration(), topic, 200) {
			check(m.Offset == int64(i), "%v: offset %d at %d", codec, m.Offset, i)
			check((m.Key != nil) == (i%2 == 0), "%v: key of %d is %q", codec, i, m.Key)
			check(i%5 != 0 || m.Value == nil, "%v: null of %d is %q", codec, i, m.Value)
			check(i%5 == 0 || len(m.Value) == i, "%v: value of %d has %d bytes", codec, i, len(m.Value))
			check((len(m.Headers) == 2) == (i%3 == 0), "%v: %d headers at %d", codec, len(m.Headers), i)
		}
	}
}

// This release of Sarama compresses with zstd but sends it with a version of Produce that may not carry it.
func zstdWithAnOldProduceIsRefused() {
	create("zstd", 1, nil)
	c := configuration()
	c.Producer.Compression = sarama.CompressionZSTD
	c.Producer.Retry.Max = 0
	producer, err := sarama.NewSyncProducer([]string{address}, c)
	must(err)
	defer producer.Close()
	_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: "zstd", Value: sarama.StringEncoder(strings.Repeat("x", 1000))})
	check(err != nil && strings.Contains(err.Error(), "compression"), "the error is %v", err)
}

func everyAcks() {
	for _, acks := range []sarama.RequiredAcks{sarama.NoResponse, sarama.WaitForLocal, sarama.WaitForAll} {
		topic := fmt.Sprintf("acks%d", acks)
		create(topic, 1, nil)
		c := configuration()
		c.Producer.RequiredAcks = acks
		var messages []*sarama.ProducerMessage
		for i := 0; i < 50; i++ {
			messages = append(messages, &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(strconv.Itoa(i))})
		}
		produce(c, messages)
		for i, m := range consume(configuration(), topic, 50) {
			check(string(m.Value) == strconv.Itoa(i), "acks %d: %q at %d", acks, m.Value, i)
		}
	}
}

func idempotentWithTenThousandMessages() {
	create("once", 1, nil)
	c := configuration()
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	var messages []*sarama.ProducerMessage
	for i := 0; i < 10000; i++ {
		messages = append(messages, &sarama.ProducerMessage{Topic: "once", Value: sarama.StringEncoder(strconv.Itoa(i))})
	}
	check(rising(produce(c, messages)), "offsets out of order")
	for i, m := range consume(configuration(), "once", 10000) {
		check(string(m.Value) == strconv.Itoa(i), "%q at %d", m.Value, i)
	}
}

func manyInFlight() {
	create("flight", 1, nil)
	c := configuration()
	c.Net.MaxOpenRequests = 5
	c.Producer.Flush.MaxMessages = 20
	var messages []*sarama.ProducerMessage
	for i := 0; i < 10000; i++ {
		messages = append(messages, &sarama.ProducerMessage{Topic: "flight", Value: sarama.StringEncoder(strconv.Itoa(i))})
	}
	check(rising(produce(c, messages)), "offsets out of order")
}

func largeMessagesUpToWhatTheTopicAllows() {
	create("plain", 1, nil)
	create("roomy", 1, map[string]string{"max.message.bytes": "5000000"})
	c := configuration()
	c.Producer.MaxMessageBytes = 4000000
	large := bytes.Repeat([]byte("q"), 900000)
	produce(c, []*sarama.ProducerMessage{{Topic: "plain", Value: sarama.ByteEncoder(large)}})
	check(bytes.Equal(consume(configuration(), "plain", 1)[0].Value, large), "not what was sent")
	larger := bytes.Repeat([]byte("q"), 3000000)
	c.Producer.Retry.Max = 0
	producer, err := sarama.NewSyncProducer([]string{address}, c)
	must(err)
	defer producer.Close()
	_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: "plain", Value: sarama.ByteEncoder(larger)})
	check(err == sarama.ErrMessageSizeTooLarge, "more than the topic allows: %v", err)
	produce(c, []*sarama.ProducerMessage{{Topic: "roomy", Value: sarama.ByteEncoder(larger)}})
	check(bytes.Equal(consume(configuration(), "roomy", 1)[0].Value, larger), "not what was sent")
}

func offsetsByTimeAndDeletedRecords() {
	create("times", 1, map[string]string{"retention.ms": "-1", "message.timestamp.before.max.ms": "9223372036854775807"})
	base := time.Unix(1650000000, 0)
	var messages []*sarama.ProducerMessage
	for i := 0; i < 50; i++ {
		messages = append(messages, &sarama.ProducerMessage{Topic: "times", Value: sarama.StringEncoder("x"), Timestamp: base.Add(time.Duration(i) * time.Second)})
	}
	produce(configuration(), messages)
	client, err := sarama.NewClient([]string{address}, configuration())
	must(err)
	defer client.Close()
	offset, err := client.GetOffset("times", 0, base.Unix()*1000+20500)
	must(err)
	check(offset == 21, "offset by time is %d", offset)
	newest, err := client.GetOffset("times", 0, sarama.OffsetNewest)
	must(err)
	check(newest == 50, "newest is %d", newest)
	admin, err := sarama.NewClusterAdmin([]string{address}, configuration())
	must(err)
	defer admin.Close()
	must(admin.DeleteRecords("times", map[int32]int64{0: 30}))
	oldest, err := client.GetOffset("times", 0, sarama.OffsetOldest)
	must(err)
	check(oldest == 30, "oldest is %d", oldest)
}

func aTopicIsCreatedByProducing() {
	produce(configuration(), []*sarama.ProducerMessage{{Topic: "auto", Value: sarama.StringEncoder("x")}})
}

// Reads so many messages, and marks them as read when the session ends.
type reader struct {
	want int
	got  []string
	done func()
}

func (*reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (r *reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		r.got = append(r.got, string(message.Value))
		session.MarkMessage(message, "")
		if len(r.got) == r.want {
			r.done()
			return nil
		}
	}
	return nil
}

func aGroupReadsCommitsAndGoesOnWhereItWas() {
	c := configuration()
	// without it this release commits at version 1, which Kafka 4 serves no more
	c.Consumer.Offsets.Retention = 24 * time.Hour
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	sent := []*sarama.ProducerMessage{}
	for i := 0; i < 10; i++ {
		sent = append(sent, &sarama.ProducerMessage{Topic: "grouped", Value: sarama.StringEncoder(fmt.Sprint(i))})
	}
	produce(configuration(), sent)
	next := 0
	for _, count := range []int{4, 6} {
		group, err := sarama.NewConsumerGroup([]string{address}, "readers", c)
		must(err)
		wait, stop := context.WithTimeout(context.Background(), 30*time.Second)
		r := &reader{want: count, done: stop}
		must(group.Consume(wait, []string{"grouped"}, r))
		must(group.Close())
		check(len(r.got) == count, "%d of %d messages", len(r.got), count)
		for _, value := range r.got {
			check(value == fmt.Sprint(next), "%s comes where %d should", value, next)
			next++
		}
	}
}

func main() {
	switch os.Args[1] {
	case "member":
		os.Exit(consumeAsMember(os.Args[2:]))
	case "transform":
		os.Exit(transform(os.Args[2:]))
	case "read":
		os.Exit(readAll(os.Args[2:]))
	}
	address = os.Args[1]
	sarama.MaxRequestSize = 200 * 1024 * 1024
	tests := []struct {
		name string
		run  func()
	}{
		{"topics_are_created_described_and_deleted", topicsAreCreatedDescribedAndDeleted},
		{"every_codec_with_keys_headers_and_nulls", everyCodecWithKeysHeadersAndNulls},
		{"zstd_with_an_old_produce_is_refused", zstdWithAnOldProduceIsRefused},
		{"every_acks", everyAcks},
		{"idempotent_with_ten_thousand_messages", idempotentWithTenThousandMessages},
		{"many_in_flight", manyInFlight},
		{"large_messages_up_to_what_the_topic_allows", largeMessagesUpToWhatTheTopicAllows},
		{"offsets_by_time_and_deleted_records", offsetsByTimeAndDeletedRecords},
		{"a_topic_is_created_by_producing", aTopicIsCreatedByProducing},
		{"a_group_reads_commits_and_goes_on_where_it_was", aGroupReadsCommitsAndGoesOnWhereItWas},
	}
	failed := false
	for _, t := range tests {
		func() {
			defer func() {
				if what := recover(); what != nil {
					failed = true
					fmt.Printf("FAIL %s: %v\n", t.name, what)
				}
			}()
			t.run()
			fmt.Printf("ok %s\n", t.name)
		}()
	}
	if failed {
		os.Exit(1)
	}
}
