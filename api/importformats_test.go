package api_test

import (
	"bytes"
	"compress/gzip"
	"testing"

	"github.com/xuri/excelize/v2"
)

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

// Files in the formats, charsets and encodings that are sent, and the answer to others.
func TestImportFormats(t *testing.T) {
	w := newEnv(t)
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	book := excelize.NewFile()
	for cell, v := range map[string]string{"A1": "Cellulare", "B1": "Nome", "A2": "+393330000001", "B2": "Zoë"} {
		w.check(book.SetCellValue("Sheet1", cell, v))
	}
	var xlsx bytes.Buffer
	w.check(book.Write(&xlsx))
	const path = "/api/contacts/list/l/import"
	const file, object = "phone,first_name\n+393330000001,Zoë\n", `{"phone":"+393330000001","first_name":"Zoë"}`
	const xlsxType = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	imported := 0
	for _, c := range []struct{ name, contentType, encoding, body string }{
		{"CSV", "text/csv", "", file},
		{"ISO-8859-1", "text/csv; charset=ISO-8859-1", "", "phone,first_name\n+393330000001,Zo\xeb\n"},
		{"quoted charset", `text/csv; charset="windows-1252"; header=present`, "", "phone,first_name\n+393330000001,Zo\xeb\n"},
		{"UTF-16", "text/csv; charset=utf-16le", "", "p\x00h\x00o\x00n\x00e\x00,\x00f\x00i\x00r\x00s\x00t\x00_\x00n\x00a\x00m\x00e\x00\n\x00+\x003\x009\x003\x003\x003\x000\x000\x000\x000\x000\x000\x001\x00,\x00Z\x00o\x00\xeb\x00\n\x00"},
		{"gzip encoding", "text/csv", "gzip", gzipped(file)},
		{"gzip file", "application/gzip", "", gzipped(file)},
		{"gzip file of gzip encoding", "text/csv", "x-gzip", gzipped(gzipped(file))},
		{"NDJSON", "application/x-ndjson", "", object + "\n" + object},
		{"JSON of Windows", "application/json", "", "\ufeff[" + object + "]"},
		{"vCard", "text/vcard", "", "BEGIN:VCARD\r\nVERSION:2.1\r\nN;ENCODING=QUOTED-PRINTABLE:;Zo=C3=AB\r\nTEL;CELL:+393330000001\r\nEND:VCARD\r\n"},
		{"XLSX", xlsxType, "", xlsx.String()},
		{"a browser's workbook", "application/octet-stream", "", xlsx.String()},
		{"CSV that Windows calls a workbook", "application/vnd.ms-excel", "", file},
	} {
		headers := []header{{"Content-Type", c.contentType}}
		if c.encoding != "" {
			headers = append(headers, header{"Content-Encoding", c.encoding})
		}
		a := w.call("POST", path, c.body, headers...).want(200)
		imported++
		want := `{"imported":0,"updated":0,"unchanged":1,"invalid":0}`
		if imported == 1 {
			want = `{"imported":1}`
		}
		subset(t, c.name, a.body, want)
	}
	subset(t, "in the end", w.call("GET", "/api/contacts?search=zoë", "").body, `{"total":1}`)

	for _, encoding := range []string{"br", "zstd", "deflate", "gzip, br"} {
		a := w.call("POST", path, file, csv, header{"Content-Encoding", encoding})
		a.problem(415, "unsupported_media_type", "")
		subset(t, encoding, a.body, `{"fix":"Send Content-Encoding: gzip, or send the body without encoding."}`)
		if !bytes.Contains(a.body, []byte(encoding)) {
			t.Errorf("%s: got %s, want the encoding named", encoding, a.body)
		}
		w.call("POST", "/api/contacts/list", `{"name":"x"}`, header{"Content-Encoding", encoding}).problem(415, "unsupported_media_type", "")
	}
	w.call("POST", path, file, header{"Content-Type", "text/csv; charset=klingon"}).problem(415, "unsupported_media_type", "")
	w.call("POST", path, file, header{"Content-Type", "application/pdf"}).problem(415, "unsupported_media_type", "")
	// JSON bodies may be packed too; what comes out is what is bounded.
	w.call("POST", "/api/contacts/list", gzipped(`{"name":"packed"}`), header{"Content-Encoding", "gzip"}).want(201)
	w.call("POST", "/api/contacts/list", gzipped(`{"name":"`+string(make([]byte, 8<<20))+`"}`), header{"Content-Encoding", "gzip"}).problem(413, "body_too_large", "")
	w.call("POST", "/api/contacts/list", `{"name":"x"}`, header{"Content-Encoding", "gzip"}).problem(400, "malformed_request", "")
}
