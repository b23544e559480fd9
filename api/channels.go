package api

import (
	"context"
	"strings"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// Channel is a tenant's own account on a channel: a WhatsApp number, an SMS account, a voice trunk (R15).
type Channel struct {
	ID         string        `json:"id" doc:"Names it in paths and in campaigns." example:"channel_10001"`
	Name       string        `json:"name" doc:"Unique among the tenant's channels."`
	Channel    string        `json:"channel" enum:"sms,whatsapp,voice" doc:"What it sends."`
	Address    string        `json:"address" doc:"The number that recipients see; for SMS it may be a sender id." example:"+393331234567"`
	ProviderID string        `json:"providerId" doc:"WhatsApp: the phone number id; voice: the trunk."`
	AccountID  string        `json:"accountId" doc:"WhatsApp: the business account that templates belong to."`
	Route      *string       `json:"route" doc:"Route of its messages; null: the tenant's."`
	Limits     ChannelLimits `json:"limits" doc:"What the provider allows it; a limit that is left out is none."`
	Status     string        `json:"status" enum:"active,paused" doc:"A paused channel can't be chosen for a campaign."`
	CreatedBy  string        `json:"createdBy"`
	CreatedAt  string        `json:"createdAt" format:"date-time"`
	UpdatedAt  string        `json:"updatedAt" format:"date-time"`
	DeletedAt  *string       `json:"deletedAt" format:"date-time"`
	Version    uint64        `json:"version"`
}

// ChannelLimits are the limits of a channel; 0 means no own limit.
type ChannelLimits struct {
	Rate       uint32 `json:"rate,omitzero" maximum:"100000" doc:"Messages a second; calls a second for voice."`
	PerDay     uint32 `json:"perDay,omitzero" doc:"WhatsApp: people reached in any 24 hours outside a conversation: 250, 2,000, 10,000 or 100,000."`
	PairSecs   uint32 `json:"pairSeconds,omitzero" maximum:"3600" doc:"WhatsApp: seconds between two messages to one person."`
	Concurrent uint32 `json:"concurrent,omitzero" maximum:"10000" doc:"Voice: calls at the same time."`
}

// ChannelInput creates or changes a channel.
type ChannelInput struct {
	Name       problem.Optional[string]        `json:"name,omitzero" doc:"Unique among the tenant's channels."`
	Channel    problem.Optional[string]        `json:"channel,omitzero" doc:"sms, whatsapp or voice; it can't be changed later."`
	Address    problem.Optional[string]        `json:"address,omitzero" doc:"The number that recipients see, with country code or as dialled in the tenant's region; for SMS it may be a sender id."`
	ProviderID problem.Optional[string]        `json:"providerId,omitzero" doc:"WhatsApp: the phone number id; voice: the trunk. Null: empty."`
	AccountID  problem.Optional[string]        `json:"accountId,omitzero" doc:"WhatsApp: the business account that templates belong to. Null: empty."`
	Route      problem.Optional[string]        `json:"route,omitzero" doc:"Route of its messages; it must carry the channel. Null or empty: the tenant's."`
	Limits     problem.Optional[ChannelLimits] `json:"limits,omitzero" doc:"What the provider allows it; replaces all limits before. Null: no limits."`
	Status     problem.Optional[string]        `json:"status,omitzero" doc:"active or paused; active by default."`
}

type channelDoc struct {
	Channel, Address, ProviderID, AccountID, Route string
	Limits                                         ChannelLimits
}

func (s *server) channels() *resource[ChannelInput, channelDoc, Channel] {
	return &resource[ChannelInput, channelDoc, Channel]{
		kind: store.KindChannel, path: "/api/channels", one: "channel", many: "channels", tag: templateTag, write: store.ScopeCampaigns,
		apply: s.applyChannel,
		view: func(row *store.Resource, d *channelDoc) *Channel {
			return &Channel{
				ID: row.ID(), Name: row.Name, Channel: d.Channel, Address: d.Address, ProviderID: d.ProviderID, AccountID: d.AccountID, Route: orNull(d.Route),
				Limits: d.Limits, Status: row.Status, CreatedBy: row.CreatedBy, CreatedAt: stamp(row.Created), UpdatedAt: stamp(row.Updated),
				DeletedAt: stampOrNull(row.Deleted), Version: row.Version,
			}
		},
	}
}

func (s *server) applyChannel(ctx context.Context, who *principal, in *ChannelInput, row *store.Resource, d *channelDoc) error {
	var ps problem.List
	if row.Version == 0 {
		row.Status = "active"
	}
	set(&in.Name, &row.Name, nil)
	row.Name = strings.TrimSpace(row.Name)
	if in.Channel.Set && row.Version > 0 && in.Channel.Value != d.Channel {
		ps.Add(problem.CodeReadOnly, "channel", "The channel can't be changed.")
	} else if in.Channel.Set {
		d.Channel = in.Channel.Value
	}
	if d.Channel == "" {
		ps.Add(problem.CodeRequired, "channel", "The channel is missing: want sms, whatsapp or voice.")
	} else {
		allowedWord(&ps, "channel", d.Channel, "sms", "whatsapp", "voice")
	}
	set(&in.Address, &d.Address, nil)
	set(&in.ProviderID, &d.ProviderID, nil)
	set(&in.AccountID, &d.AccountID, nil)
	set(&in.Limits, &d.Limits, nil)
	set(&in.Status, &row.Status, nil)
	allowedWord(&ps, "status", row.Status, "active", "paused")
	d.Address = strings.TrimSpace(d.Address)
	switch {
	case d.Address == "":
		ps.Add(problem.CodeRequired, "address", "The address is missing: the number that recipients see.")
	case d.Channel == "whatsapp" || d.Channel == "voice":
		number, err := s.phones.Parse(d.Address, who.tenant.Region)
		if err != nil {
			ps = append(ps, wrongNumber("address", err))
		} else {
			d.Address = number.E164
		}
	case d.Channel == "sms":
		if fault := badSender(d.Address, schemas.ChannelSMS); fault != "" {
			ps.Add(problem.CodeInvalid, "address", "%s", fault)
		}
	}
	if d.Limits.Concurrent > 0 && d.Channel != "voice" && d.Channel != "" {
		ps.Add(problem.CodeInvalid, "limits.concurrent", "Only a voice channel has a limit of concurrent calls.")
	}
	if (d.Limits.PerDay > 0 || d.Limits.PairSecs > 0) && d.Channel != "whatsapp" && d.Channel != "" {
		ps.Add(problem.CodeInvalid, "limits.perDay", "Only a WhatsApp channel has limits for people in 24 hours and for messages to one person.")
	}
	if err := ps.Err(); err != nil {
		return err
	}
	if _, ok := schemas.ParseChannel(d.Channel); !ok {
		return nil
	}
	return s.routeFor(ctx, &in.Route, &d.Route, d.Channel)
}
