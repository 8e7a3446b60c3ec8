package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// asks sends one line through the whole protocol and reads the answer into a value.
func asks(t *testing.T, request any, into any) {
	t.Helper()
	line, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := serve(t, bytes.NewReader(line), &out); err != nil {
		t.Fatal(err)
	}
	var failed fault
	if err := json.Unmarshal(out.Bytes(), &failed); err != nil || failed.Fault != "" {
		t.Fatalf("%s\nwas answered with %s", line, out.Bytes())
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		t.Fatal(err)
	}
}

// vector is a value that is known with all that is in it: two were recorded from real apiservers.
type vector struct {
	Name        string            `json:"name"`
	Type        int32             `json:"type"`
	Provider    string            `json:"provider"`
	KeyID       string            `json:"key_id"`
	Secret      hexBytes          `json:"secret"`
	DEKSource   hexBytes          `json:"encrypted_dek_source"`
	Annotations map[string]string `json:"annotations"`
	AAD         string            `json:"aad"`
	Info        hexBytes          `json:"info"`
	Nonce       hexBytes          `json:"nonce"`
	Plaintext   hexBytes          `json:"plaintext"`
	Stored      hexBytes          `json:"stored"`
	CacheKey    *hexBytes         `json:"cache_key"`
}

func vectors(t *testing.T) []vector {
	text, err := os.ReadFile("../vectors/objects.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != 7 {
		t.Fatalf("there are %d vectors", len(vectors))
	}
	return vectors
}

func (v vector) object() map[string]any {
	return map[string]any{"type": v.Type, "key_id": v.KeyID, "dek_source": v.DEKSource, "annotations": v.Annotations}
}

func TestKnownValuesAreOpened(t *testing.T) {
	for _, v := range vectors(t) {
		request := map[string]any{
			"do": "open", "provider": v.Provider, "value": v.Stored, "aad": v.AAD, "state": v.object(),
			"decrypt": map[string]any{"plaintext": v.Secret},
		}
		var answer openAnswer
		asks(t, request, &answer)
		if answer.Error != nil || answer.Stale || !bytes.Equal(answer.Plaintext, v.Plaintext) {
			t.Errorf("%s: %+v", v.Name, answer)
		}
		if len(answer.Calls) != 1 || answer.Calls[0].KeyID != v.KeyID {
			t.Errorf("%s: calls %+v", v.Name, answer.Calls)
		}
		request["aad"] = v.AAD + "x"
		asks(t, request, &answer)
		if answer.Error == nil || *answer.Error != "cipher: message authentication failed" {
			t.Errorf("%s elsewhere: %+v", v.Name, answer)
		}
	}
}

func TestKnownValuesAreSealed(t *testing.T) {
	for _, v := range vectors(t) {
		request := v.object()
		request["do"], request["provider"], request["secret"] = "seal", v.Provider, v.Secret
		request["aad"], request["plaintext"] = v.AAD, v.Plaintext
		request["random"] = append(append(hexBytes{}, v.Info...), v.Nonce...)
		var answer sealAnswer
		asks(t, request, &answer)
		stored := v.Stored
		if !emptyValuesAreWritten {
			present := []byte{0x22, 7, 0x0a, 3, 'a', '.', 'b', 0x12, 0}
			stored = bytes.ReplaceAll(stored, present, []byte{0x22, 5, 0x0a, 3, 'a', '.', 'b'})
		}
		// Of several annotations the order is random.
		if answer.Error != nil || len(answer.Value) != len(stored) || len(v.Annotations) < 2 && !bytes.Equal(answer.Value, stored) {
			t.Errorf("%s: %x\n not %x", v.Name, answer.Value, stored)
		}
	}
}

func TestLimitsAreSaid(t *testing.T) {
	for _, v := range vectors(t) {
		request := v.object()
		request["do"], request["data"] = "validate", "00"
		var answer validateAnswer
		asks(t, request, &answer)
		if answer.Object != nil || answer.KeyID != nil || answer.Encrypt != nil {
			t.Errorf("%s: %+v", v.Name, answer)
		}
		if v.Type == seed && v.CacheKey != nil && !bytes.Equal(answer.CacheKey, *v.CacheKey) {
			t.Errorf("%s: cache key %x", v.Name, answer.CacheKey)
		}
	}
	var answer validateAnswer
	asks(t, map[string]any{"do": "validate", "type": 2, "key_id": "", "dek_source": "", "annotations": nil, "data": ""}, &answer)
	if *answer.Object != "unknown encryptedDEKSourceType: 2" || *answer.KeyID != "keyID is empty" ||
		*answer.Encrypt != "failed to validate encrypted DEK source: encrypted DEK source is empty" {
		t.Errorf("%s, %s, %s", *answer.Object, *answer.KeyID, *answer.Encrypt)
	}
}

const goodConfig = `kind: EncryptionConfiguration
apiVersion: apiserver.config.k8s.io/v1
resources: [{resources: [secrets], providers: [{kms: {apiVersion: v2, name: a, endpoint: "unix:///a"}}]}]
`

func TestConfigurations(t *testing.T) {
	var answer configAnswer
	asks(t, map[string]any{"do": "config", "text": goodConfig}, &answer)
	if !answer.OK || answer.Load != nil || len(answer.Errors) != 0 {
		t.Errorf("%+v", answer)
	}
	answer = configAnswer{}
	asks(t, map[string]any{"do": "config", "text": strings.Replace(goodConfig, "name: a", `name: "a:b"`, 1)}, &answer)
	if answer.OK || len(answer.Errors) != 1 || answer.Errors[0].Field != "resources[0].providers[0].kms.name" {
		t.Errorf("%+v", answer)
	}
	answer = configAnswer{}
	asks(t, map[string]any{"do": "config", "text": "]"}, &answer)
	if answer.OK || answer.Decode == nil {
		t.Errorf("%+v", answer)
	}
	// What validation accepts and the client refuses.
	answer = configAnswer{}
	asks(t, map[string]any{"do": "config", "text": strings.Replace(goodConfig, "unix:///a", "unix:///b%25c", 1)}, &answer)
	if answer.OK || len(answer.Errors) != 0 || !strings.Contains(*answer.Load, "invalid URL escape") {
		t.Errorf("%+v", answer)
	}
}

// TestStory compares with what is known of a real apiserver: Status fails, writes are refused three minutes after
// the last good answer, reads go on until a restart.
func TestStory(t *testing.T) {
	var answer probeAnswer
	asks(t, json.RawMessage(`{"do": "probe", "name": "P", "background": true, "plugin": {
		"status": {"version": "v2", "healthz": "ok", "key_id": "1"},
		"encrypt": {"ciphertext": "77", "wraps": true, "key_id": "1", "annotations": {}},
		"decrypt": {"plaintext": "", "unwraps": true}
	}, "steps": [
		{"write": {"aad": "/a", "plaintext": "6b"}},
		{"wait_ms": 60000}, {"check": {}},
		{"plugin": {"status": {"version": "", "healthz": "", "key_id": "", "error": "E"}}},
		{"wait_ms": 181000}, {"check": {}},
		{"write": {"aad": "/a", "plaintext": "6b"}},
		{"read": {"aad": "/a", "value": "", "of": 0}},
		{"restart": {}},
		{"read": {"aad": "/a", "value": "", "of": 0}}
	]}`), &answer)
	calls := func(outcome outcome) (made string) {
		for _, call := range outcome.Calls {
			made += call.Method[:1]
		}
		return made
	}
	made := calls(answer.Start)
	for _, step := range answer.Steps {
		made += " " + calls(step)
	}
	// The poll after a minute; the good result is used again; at 120 s the first failure, then one every 10 s.
	if made != "SE  S   SSSSSSSSSSSSS    S " {
		t.Errorf("%q", made)
	}
	if said := answer.Steps[6].Error; said == nil || !strings.HasSuffix(*said, "expired at 2000-01-01T00:04:00Z (current time is 2000-01-01T00:04:01Z)") {
		t.Errorf("%+v", answer.Steps[6])
	}
	if hex.EncodeToString(answer.Steps[7].Plaintext) != "6b" || *answer.Steps[9].Error != "got unexpected nil transformer" {
		t.Errorf("%+v", answer.Steps)
	}
}

// TestChain writes with the first provider and reads with any.
func TestChain(t *testing.T) {
	provider := func(first, second string) string {
		return "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\n" +
			"resources: [{resources: [secrets], providers: [" + first + ", " + second + "]}]\n"
	}
	const cbc = "{aescbc: {keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}}"
	request := map[string]any{
		"do": "chain", "text": provider(cbc, "{identity: {}}"), "resource": "secrets", "aad": "/a",
		"plaintext": "6b", "random": "00000000000000000000000000000000",
	}
	var answer chainAnswer
	asks(t, request, &answer)
	if answer.Error != nil || !bytes.HasPrefix(answer.Value, []byte("k8s:enc:aescbc:v1:k:")) {
		t.Fatalf("%+v", answer)
	}
	stored := answer.Value
	read := func(text string, value hexBytes) (answer chainAnswer) {
		asks(t, map[string]any{"do": "chain", "text": text, "resource": "secrets", "aad": "/b", "value": value}, &answer)
		return answer
	}
	if answer := read(provider("{identity: {}}", cbc), stored); !answer.Stale || !bytes.Equal(answer.Plaintext, []byte("k")) {
		t.Errorf("%+v", answer)
	}
	// Nothing but the initialization vector.
	if answer := read(provider(cbc, "{identity: {}}"), stored[:len(stored)-16]); answer.Panic == nil {
		t.Errorf("%+v", answer)
	}
	if answer := read(provider("{identity: {}}", "{identity: {}}"), stored); answer.Error == nil || *answer.Error != "no matching prefix found" {
		t.Errorf("%+v", answer)
	}
}

func TestRequestsThatAreNotUnderstood(t *testing.T) {
	for _, request := range []string{"", "7", `{"do": "x"}`, `{"do": "open", "vlaue": ""}`, `{"do": "probe", "name": "x", "steps": []}`} {
		var failed fault
		if err := json.Unmarshal(answer(t, t.TempDir(), []byte(request)), &failed); err != nil || failed.Fault == "" {
			t.Errorf("%s: %+v", request, failed)
		}
	}
}
