package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Address returns the address that an endpoint means.
func Address(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery+u.Fragment != "" {
		return "", errors.New("want the address of an OTLP collector, such as http://127.0.0.1:4318")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// client speaks OTLP/HTTP. The client of OpenTelemetry brings gRPC into the program, which is as large as the rest.
type client struct {
	address  string
	http     *http.Client
	rejected int // spans of the last request that the collector refused
}

var _ otlptrace.Client = (*client)(nil)

// Start and Stop are calls of the exporter that need nothing.
func (*client) Start(context.Context) error { return nil }

// Stop is the counterpart of Start.
func (*client) Stop(context.Context) error { return nil }

// attempts, and the wait before the next one when the collector names none.
const (
	attempts  = 3
	pause     = time.Second
	mostPause = 5 * time.Second
)

// UploadTraces sends spans, and again when the collector says that it may take them later.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// ExportTraceServiceRequest and TracesData have the same single field.
	plain, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err = z.Write(plain); err == nil {
		err = z.Close()
	}
	if err != nil {
		return fmt.Errorf("pack spans: %w", err)
	}
	for n := 1; ; n++ {
		wait, err := c.post(ctx, packed.Bytes())
		if err == nil || wait == 0 || n == attempts {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// post makes one request. After an error, wait is when to try again; 0: it is of no use.
func (c *client) post(ctx context.Context, body []byte) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.address, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := c.http.Do(req)
	if err != nil {
		return pause, err
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		c.rejected = rejected(answer)
		return 0, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		wait = pause
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			wait = min(time.Duration(s)*time.Second, mostPause)
		}
	}
	return wait, fmt.Errorf("%s answers %s", c.address, resp.Status)
}

// rejected reads how many spans the collector refused: ExportTraceServiceResponse.partial_success.rejected_spans, which
// is field 1 of field 1.
func rejected(answer []byte) int {
	for range 2 {
		num, typ, n := protowire.ConsumeTag(answer)
		if n < 0 || num != 1 {
			return 0
		}
		answer = answer[n:]
		switch typ {
		case protowire.BytesType:
			if answer, n = protowire.ConsumeBytes(answer); n < 0 {
				return 0
			}
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(answer)
			if n < 0 || v > batchSize {
				return 0
			}
			return int(v) //nolint:gosec // at most a batch
		default:
			return 0
		}
	}
	return 0
}
