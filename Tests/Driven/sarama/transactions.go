package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/Shopify/sarama"
)

// This release of Sarama reads what is committed, and has no producer of transactions. It has their requests, in their first
// versions: transform makes of them what transaction_worker.py makes of other clients, and tells the same. The places at which
// it stands still lie behind its requests: begun behind AddPartitionsToTxn, produced behind Produce, flushed behind AddOffsetsToTxn,
// offsets-sent behind TxnOffsetCommit, committed and aborted behind EndTxn.

type transformer struct {
	address, group, input, output, id string
	timeout                           time.Duration
	most                              int
	stops                             []string
	hasStood                          bool
	lines                             *bufio.Reader
	broker                            *sarama.Broker
	producer                          int64
	epoch                             int16
	sequences                         map[int32]int32
}

func (t *transformer) stop(name string) {
	if t.hasStood || len(t.stops) == 0 || t.stops[0] != name {
		return
	}
	t.stops, t.hasStood = t.stops[1:], true
	fmt.Println("at", name)
	_, _ = t.lines.ReadString('\n')
}

func (t *transformer) wantsAbort() bool {
	return !t.hasStood && len(t.stops) > 0 && (t.stops[0] == "unaborted" || t.stops[0] == "aborted")
}

// ask sends a request until it is answered, over a new connection where the old one broke, and for as long as it is to be sent
// again. The request may have been carried out already: that must make no difference.
func (t *transformer) ask(what string, send func(*sarama.Broker) (sarama.KError, error)) {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		check(time.Now().Before(end), "%s is not answered", what)
		if t.broker == nil {
			broker := sarama.NewBroker(t.address)
			if broker.Open(configuration()) != nil {
				continue
			}
			if ok, _ := broker.Connected(); !ok {
				continue
			}
			t.broker = broker
		}
		code, err := send(t.broker)
		if err != nil {
			_ = t.broker.Close()
			t.broker = nil
			continue
		}
		switch code {
		case sarama.ErrNoError, sarama.ErrDuplicateSequenceNumber:
			return
		case sarama.ErrConcurrentTransactions, sarama.ErrOffsetsLoadInProgress, sarama.ErrConsumerCoordinatorNotAvailable,
			sarama.ErrNotCoordinatorForConsumer, sarama.ErrNotLeaderForPartition, sarama.ErrLeaderNotAvailable,
			sarama.ErrUnknownTopicOrPartition:
		default:
			check(false, "%s: %v", what, code)
		}
	}
}

func (t *transformer) initialise() {
	t.ask("FindCoordinator", func(b *sarama.Broker) (sarama.KError, error) {
		got, err := b.FindCoordinator(&sarama.FindCoordinatorRequest{Version: 1, CoordinatorKey: t.id, CoordinatorType: sarama.CoordinatorTransaction})
		if err != nil {
			return 0, err
		}
		return got.Err, nil
	})
	t.ask("InitProducerId", func(b *sarama.Broker) (sarama.KError, error) {
		got, err := b.InitProducerID(&sarama.InitProducerIDRequest{TransactionalID: &t.id, TransactionTimeout: t.timeout})
		if err != nil {
			return 0, err
		}
		t.producer, t.epoch, t.sequences = got.ProducerID, got.ProducerEpoch, map[int32]int32{}
		return got.Err, nil
	})
}

func partitionError(errors map[string][]*sarama.PartitionError) sarama.KError {
	for _, partitions := range errors {
		for _, partition := range partitions {
			if partition.Err != sarama.ErrNoError {
				return partition.Err
			}
		}
	}
	return sarama.ErrNoError
}

func (t *transformer) addPartition(partition int32) {
	t.ask("AddPartitionsToTxn", func(b *sarama.Broker) (sarama.KError, error) {
		got, err := b.AddPartitionsToTxn(&sarama.AddPartitionsToTxnRequest{
			TransactionalID: t.id, ProducerID: t.producer, ProducerEpoch: t.epoch, TopicPartitions: map[string][]int32{t.output: {partition}}})
		if err != nil {
			return 0, err
		}
		return partitionError(got.Errors), nil
	})
}

func (t *transformer) produce(partition int32, messages []*sarama.ConsumerMessage) {
	sequence := t.sequences[partition]
	t.ask("Produce", func(b *sarama.Broker) (sarama.KError, error) {
		now := time.Now()
		batch := &sarama.RecordBatch{
			Version: 2, ProducerID: t.producer, ProducerEpoch: t.epoch, FirstSequence: sequence, IsTransactional: true,
			FirstTimestamp: now, MaxTimestamp: now, LastOffsetDelta: int32(len(messages) - 1), PartitionLeaderEpoch: -1}
		for i, m := range messages {
			batch.Records = append(batch.Records, &sarama.Record{Key: m.Key, Value: append(append([]byte{}, m.Value...), '!'), OffsetDelta: int64(i)})
		}
		request := &sarama.ProduceRequest{TransactionalID: &t.id, RequiredAcks: sarama.WaitForAll, Timeout: 10000, Version: 3}
		request.AddBatch(t.output, partition, batch)
		got, err := b.Produce(request)
		if err != nil {
			return 0, err
		}
		return got.GetBlock(t.output, partition).Err, nil
	})
	t.sequences[partition] = sequence + int32(len(messages))
}

func (t *transformer) addOffsets() {
	t.ask("AddOffsetsToTxn", func(b *sarama.Broker) (sarama.KError, error) {
		got, err := b.AddOffsetsToTxn(&sarama.AddOffsetsToTxnRequest{
			TransactionalID: t.id, ProducerID: t.producer, ProducerEpoch: t.epoch, GroupID: t.group})
		if err != nil {
			return 0, err
		}
		return got.Err, nil
	})
}

func (t *transformer) commitOffset(partition int32, offset int64) {
	t.ask("TxnOffsetCommit", func(b *sarama.Broker) (sarama.KError, error) {
		nothing := ""
		got, err := b.TxnOffsetCommit(&sarama.TxnOffsetCommitRequest{
			TransactionalID: t.id, GroupID: t.group, ProducerID: t.producer, ProducerEpoch: t.epoch,
			Topics: map[string][]*sarama.PartitionOffsetMetadata{t.input: {{Partition: partition, Offset: offset, Metadata: &nothing}}}})
		if err != nil {
			return 0, err
		}
		return partitionError(got.Topics), nil
	})
}

func (t *transformer) end(commits bool) {
	t.ask("EndTxn", func(b *sarama.Broker) (sarama.KError, error) {
		got, err := b.EndTxn(&sarama.EndTxnRequest{TransactionalID: t.id, ProducerID: t.producer, ProducerEpoch: t.epoch, TransactionResult: commits})
		if err != nil {
			return 0, err
		}
		return got.Err, nil
	})
}

// committed is where the group stands; 0 where it never was.
func (t *transformer) committed(partition int32) (offset int64) {
	t.ask("FindCoordinator of the group", func(b *sarama.Broker) (sarama.KError, error) {
		got, err := b.FindCoordinator(&sarama.FindCoordinatorRequest{Version: 1, CoordinatorKey: t.group, CoordinatorType: sarama.CoordinatorGroup})
		if err != nil {
			return 0, err
		}
		return got.Err, nil
	})
	t.ask("OffsetFetch", func(b *sarama.Broker) (sarama.KError, error) {
		request := &sarama.OffsetFetchRequest{Version: 1, ConsumerGroup: t.group}
		request.AddPartition(t.input, partition)
		got, err := b.FetchOffset(request)
		if err != nil {
			return 0, err
		}
		block := got.GetBlock(t.input, partition)
		offset = block.Offset
		return block.Err, nil
	})
	if offset < 0 {
		return 0
	}
	return offset
}

// transformOnce takes what comes next of one partition, and says how many records it committed.
func (t *transformer) transformOnce(partition int32, messages []*sarama.ConsumerMessage) int {
	t.hasStood = false
	t.addPartition(partition)
	t.stop("begun")
	t.produce(partition, messages)
	t.stop("produced")
	t.addOffsets()
	t.stop("flushed")
	t.commitOffset(partition, messages[len(messages)-1].Offset+1)
	t.stop("offsets-sent")
	if t.wantsAbort() {
		t.stop("unaborted")
		t.end(false)
		t.stop("aborted")
		return 0
	}
	t.end(true)
	t.stop("committed")
	return len(messages)
}

// next waits for messages for a moment.
func next(messages <-chan *sarama.ConsumerMessage, most int) (got []*sarama.ConsumerMessage) {
	for len(got) < most {
		select {
		case m := <-messages:
			got = append(got, m)
		case <-time.After(50 * time.Millisecond):
			return got
		}
	}
	return got
}

// transform consumes, transforms and produces until SIGTERM. It manages its partitions itself.
func transform(words []string) (code int) {
	t := &transformer{address: words[0], group: words[1], input: words[2], output: words[3], id: words[4], lines: bufio.NewReader(os.Stdin)}
	flags := flag.NewFlagSet("transform", flag.ExitOnError)
	timeout := flags.Int("timeout", 60000, "")
	flags.IntVar(&t.most, "most", 50, "")
	stops := flags.String("stops", "", "")
	flags.String("instance", "", "which member of a group it always is: it is none")
	_ = flags.Parse(words[5:])
	t.timeout = time.Duration(*timeout) * time.Millisecond
	if *stops != "" {
		t.stops = strings.Split(*stops, ",")
	}
	defer func() {
		if what := recover(); what != nil {
			fmt.Println("again", what)
			code = 1
		}
	}()
	ctx, end := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		end()
	}()
	t.initialise()
	t.stop("initialised")
	c := configuration()
	c.Consumer.IsolationLevel = sarama.ReadCommitted
	c.Consumer.MaxWaitTime = 100 * time.Millisecond
	c.Consumer.Retry.Backoff = 100 * time.Millisecond
	c.Consumer.Return.Errors = false
	c.Metadata.Retry.Max, c.Metadata.Retry.Backoff = 100, 100*time.Millisecond
	consumer, err := sarama.NewConsumer([]string{t.address}, c)
	must(err)
	partitions, err := consumer.Partitions(t.input)
	must(err)
	var inputs []sarama.PartitionConsumer
	var kept [][]*sarama.ConsumerMessage
	for _, partition := range partitions {
		input, err := consumer.ConsumePartition(t.input, partition, t.committed(partition))
		must(err)
		inputs, kept = append(inputs, input), append(kept, nil)
	}
	fmt.Println("ready")
	for ctx.Err() == nil {
		for i, partition := range partitions {
			// what was aborted comes again
			messages := kept[i]
			if len(messages) == 0 {
				messages = next(inputs[i].Messages(), t.most)
			}
			kept[i] = messages
			if len(messages) == 0 {
				continue
			}
			if count := t.transformOnce(partition, messages); count > 0 {
				kept[i] = nil
				fmt.Println("committed", count)
			} else {
				fmt.Println("aborted as wanted")
			}
		}
	}
	return 0
}

// readAll prints what a topic's first partition has, up to where nothing comes any more: ADDRESS TOPIC ISOLATION.
func readAll(words []string) int {
	c := configuration()
	if words[2] == "read_committed" {
		c.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	consumer, err := sarama.NewConsumer([]string{words[0]}, c)
	must(err)
	partition, err := consumer.ConsumePartition(words[1], 0, sarama.OffsetOldest)
	must(err)
	for {
		select {
		case m := <-partition.Messages():
			fmt.Println(string(m.Value))
		case e := <-partition.Errors():
			must(e.Err)
		case <-time.After(1500 * time.Millisecond):
			return 0
		}
	}
}
