// A receiver in Go to compare with: net/http and franz-go. It checks Calendly's signature, reads the
// booking's id, and answers 202 when all replicas have the record.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

type envelope struct {
	Event     string          `json:"event"`
	CreatedAt string          `json:"created_at"`
	Payload   json.RawMessage `json:"payload"`
}

type invitee struct {
	URI       string `json:"uri"`
	UpdatedAt string `json:"updated_at"`
}

// signed tells whether the header t=…,v1=… signs the body.
func signed(secret []byte, header string, body []byte) bool {
	var sent, signature string
	for _, part := range strings.Split(header, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "t":
			sent = value
		case "v1":
			signature = value
		}
	}
	given, err := hex.DecodeString(signature)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	io.WriteString(mac, sent+".")
	mac.Write(body)
	return hmac.Equal(mac.Sum(nil), given)
}

func main() {
	address, brokers, topic, secret := os.Args[1], os.Args[2], os.Args[3], []byte(os.Getenv("SECRET"))
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()),
	)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/webhooks/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		if !signed(secret, r.Header.Get("Calendly-Webhook-Signature"), body) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var event envelope
		var booking invitee
		if json.Unmarshal(body, &event) != nil || json.Unmarshal(event.Payload, &booking) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		record := &kgo.Record{Key: []byte(booking.URI), Value: body, Headers: []kgo.RecordHeader{
			{Key: "ce_specversion", Value: []byte("1.0")},
			{Key: "ce_type", Value: []byte("calendly." + event.Event)},
			{Key: "ce_source", Value: []byte("/calendly/bench")},
			{Key: "ce_subject", Value: []byte(booking.URI)},
			{Key: "ce_time", Value: []byte(event.CreatedAt)},
			{Key: "ce_id", Value: []byte(booking.URI + booking.UpdatedAt)},
		}}
		if client.ProduceSync(r.Context(), record).FirstErr() != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	log.Fatal(http.ListenAndServe(address, nil))
}
