package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"fanfare/api/problem"
	"fanfare/api/store"
)

// Key is an API key, without its secret.
type Key struct {
	ID        string   `json:"id" doc:"Names the key in paths; it is not the secret." example:"key_5n2k8s1x4z7b9m3q"`
	Name      string   `json:"name" doc:"What the key is for."`
	Hint      string   `json:"hint" doc:"The last four characters of the secret."`
	Scopes    []string `json:"scopes" nullable:"false" doc:"What the key may do."`
	Test      bool     `json:"test" doc:"Its messages go only to the simulator (X14)."`
	CreatedAt string   `json:"createdAt" format:"date-time" doc:"When it was created, in UTC."`
	UsedAt    *string  `json:"usedAt" format:"date-time" doc:"Last use, to the minute; null: never."`
	RevokedAt *string  `json:"revokedAt" format:"date-time" doc:"When it was revoked, in UTC; null: it works."`
	Secret    string   `json:"secret,omitempty" doc:"Shown once, in the answer that creates the key; only its hash is kept."`
	Version   uint64   `json:"version"`
}

// KeyInput creates a key.
type KeyInput struct {
	Name   string    `json:"name,omitzero" doc:"What it is for; at most 200 bytes."`
	Scopes *[]string `json:"scopes,omitzero" doc:"read, campaigns, confirm, contacts, send, admin; all but admin by default."`
	Test   bool      `json:"test,omitzero" doc:"True: its messages go only to the simulator, and it can change only test campaigns and test lists."`
}

type (
	keysOut     struct{ Body *Page[*Key] }
	keyCreateIn struct{ Body problem.Body[KeyInput] }
	keyIn       struct {
		ID string `path:"id" doc:"Id of the key."`
	}
	keyRevokeIn struct {
		ID      string `path:"id" doc:"Id of the key."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to revoke; 412 when another version is stored. Left out: any version."`
	}
	keyOut struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *Key
	}
)

func (s *server) registerKeys() {
	register(s, operation{
		id: "listKeys", method: http.MethodGet, path: "/api/keys", summary: "List the API keys of a tenant, oldest first", scope: store.ScopeAdmin, errors: []int{422}, tag: operatorTag,
		describe: "Keys of the tenant of this key, or of the tenant in the header X-Tenant.",
	}, func(ctx context.Context, in *shortIn) (*keysOut, error) {
		rows, err := s.Store.Keys(ctx, requestOf(ctx).who.tenant.ID)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		page, err := pageOf("keys", in, rows, func(k *store.Key) []string { return []string{k.ID, k.Name} },
			func(k *store.Key) (*Key, error) { return viewKey(k), nil })
		return &keysOut{page}, err
	})
	register(s, operation{
		id: "createKey", method: http.MethodPost, path: "/api/keys", summary: "Create an API key", status: http.StatusCreated, scope: store.ScopeAdmin,
		errors: []int{400, 422}, tag: operatorTag,
	}, s.createKey)
	register(s, operation{
		id: "getKey", method: http.MethodGet, path: "/api/keys/{id}", summary: "Get an API key", scope: store.ScopeAdmin, errors: []int{404}, tag: operatorTag,
	}, func(ctx context.Context, in *keyIn) (*keyOut, error) { return s.answerKey(ctx, in.ID) })
	register(s, operation{
		id: "revokeKey", method: http.MethodDelete, path: "/api/keys/{id}", summary: "Revoke an API key permanently", scope: store.ScopeAdmin, errors: []int{404, 412}, tag: operatorTag,
		describe: "The key stops working within two seconds.",
	}, func(ctx context.Context, in *keyRevokeIn) (*keyOut, error) {
		version, p := ifMatch(in.IfMatch)
		if p != nil {
			return nil, p
		}
		if err := s.Store.RevokeKey(ctx, requestOf(ctx).who.tenant.ID, in.ID, version); err != nil {
			return nil, s.storeProblem(err)
		}
		return s.answerKey(ctx, in.ID)
	})
}

// answerKey answers with a key of the tenant, revoked ones included.
func (s *server) answerKey(ctx context.Context, id string) (*keyOut, error) {
	keys, err := s.Store.Keys(ctx, requestOf(ctx).who.tenant.ID)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	i := slices.IndexFunc(keys, func(k store.Key) bool { return k.ID == id })
	if i < 0 {
		return nil, problem.New(problem.CodeNotFound, "There is no key %q.", problem.Truncate(id, 60))
	}
	return &keyOut{ETag: etag(keys[i].Version), Body: viewKey(&keys[i])}, nil
}

func viewKey(k *store.Key) *Key {
	v := &Key{ID: k.ID, Name: k.Name, Hint: k.Hint, Scopes: []string{}, Test: k.Test, CreatedAt: stamp(k.Created), UsedAt: stampOrNull(k.Used), RevokedAt: stampOrNull(k.Revoked), Version: k.Version}
	for _, scope := range k.Scopes {
		v.Scopes = append(v.Scopes, string(scope))
	}
	return v
}

func (s *server) createKey(ctx context.Context, in *keyCreateIn) (*keyOut, error) {
	body := &in.Body.Value
	var scopes []store.Scope
	if body.Scopes != nil {
		if len(*body.Scopes) == 0 {
			return nil, problem.Field(problem.CodeRequired, "scopes", "A key without a scope cannot do anything.").WithFix("Name at least one, or leave scopes out for all but admin.")
		}
		for _, name := range *body.Scopes {
			if !slices.Contains(store.Scopes, store.Scope(name)) {
				return nil, problem.Field(problem.CodeInvalid, "scopes", "%q is not a scope: want %s.", problem.Truncate(name, 40), scopeNames())
			}
			scopes = append(scopes, store.Scope(name))
		}
	}
	k, secret, err := s.Store.CreateKey(ctx, requestOf(ctx).who.tenant.ID, strings.TrimSpace(body.Name), scopes, body.Test)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	v := viewKey(&k)
	v.Secret = secret
	return &keyOut{"/api/keys/" + k.ID, etag(k.Version), v}, nil
}

func scopeNames() string {
	names := make([]string, len(store.Scopes))
	for i, scope := range store.Scopes {
		names[i] = string(scope)
	}
	return strings.Join(names, ", ")
}
