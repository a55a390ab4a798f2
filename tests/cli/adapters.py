# SPDX-License-Identifier: MIT
# tests/cli/adapters.py - the other side of adapters_peft.sh: the same adapters in Hugging Face's PEFT.
#
#   adapters.py make FAMILY KIND FOLDER     a random model in FOLDER/base, a first adapter in FOLDER/first
#   adapters.py train KIND FOLDER TEXT      trains that adapter on the text's bytes; losses to FOLDER/losses,
#                                       the adapter to FOLDER/last
#   adapters.py compare FOLDER ADAPTER MERGED TEXT
#                                       losses of base + ADAPTER and of MERGED, and the largest difference of logits
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

B, T, STEPS, LR = 4, 32, 20, 1e-2
torch.manual_seed(7)
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()


def model_of(family):
    if family == "gpt2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(
            n_layer=2, n_head=2, n_embd=40, n_positions=T, vocab_size=257, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0))
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=48, intermediate_size=72,
        max_position_embeddings=T, vocab_size=257, tie_word_embeddings=False))


def make(family, kind, folder):
    model = model_of(family)
    for p in model.parameters():            # weights that matter, and no zero biases
        p.data += 0.08 * torch.randn_like(p)
    model.save_pretrained(folder + "/base")
    targets = {"lora": None, "dora": None, "all": ["c_attn", "c_proj", "c_fc"] if family == "gpt2" else
               ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}
    config = LoraConfig(r=3, lora_alpha=5, lora_dropout=0.0, target_modules=targets[kind], use_dora=kind == "dora",
                        use_rslora=kind == "all", fan_in_fan_out=family == "gpt2", task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(folder + "/first")


def rows(text, count, at):
    ids = torch.tensor(list(open(text, "rb").read()), dtype=torch.long)
    x = torch.stack([ids[at + i * T:at + i * T + T] for i in range(count)])
    y = torch.stack([ids[at + i * T + 1:at + i * T + T + 1] for i in range(count)])
    return x, y


def loss_of(model, x, y):
    logits = model(x).logits
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1)), logits


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def train(kind, folder, text):
    model = PeftModel.from_pretrained(load(folder + "/base"), folder + "/first", is_trainable=True)
    own = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([
        {"params": [p for p in own if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in own if p.dim() < 2], "weight_decay": 0.0}], lr=LR, betas=(0.9, 0.95), eps=1e-8)
    with open(folder + "/losses", "w") as out:
        for step in range(STEPS):
            x, y = rows(text, B, step * B * T)
            loss, _ = loss_of(model, x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            out.write("%.7f\n" % loss.item())
    model.save_pretrained(folder + "/last")


@torch.no_grad()
def compare(folder, adapter, merged, text):
    x, y = rows(text, 8, 0)
    base, _ = loss_of(load(folder + "/base"), x, y)
    a, logits = loss_of(PeftModel.from_pretrained(load(folder + "/base"), adapter), x, y)
    b, others = loss_of(load(merged), x, y)
    print("%.7f %.7f %.7f %.3g" % (base, a, b, (logits - others).abs().max()))


{"make": make, "train": train, "compare": compare}[sys.argv[1]](*sys.argv[2:])
