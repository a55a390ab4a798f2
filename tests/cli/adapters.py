# SPDX-License-Identifier: MIT
# tests/cli/adapters.py - the other side of adapters_peft.sh: the same adapters in Hugging Face's PEFT.
#
#   adapters.py begin FOLDER TEXT      for each case FOLDER/CASE: a random model in base, a first adapter in first; trains
#                                      that on the text's bytes: losses, and the adapter in last
#   adapters.py compare FOLDER TEXT    a line a case: its name, losses of base, of base + mine and of merged (mine and merged
#                                      are what geartrain wrote), and the largest difference of logits
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


CASES = ["gpt2-lora", "gpt2-dora", "llama-all", "bert-lora"]


def model_of(family):
    if family == "bert":
        return transformers.BertForMaskedLM(transformers.BertConfig(
            num_hidden_layers=2, num_attention_heads=2, hidden_size=40, intermediate_size=64, vocab_size=40,
            max_position_embeddings=T))
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
    if family == "bert":
        words = "[PAD] [UNK] [CLS] [SEP] [MASK] . the wheel turns a gear of train and its teeth meet another".split()
        with open(folder + "/base/vocab.txt", "w") as out:
            out.write("".join(w + "\n" for w in words + ["[unused%d]" % i for i in range(40 - len(words))]))
    targets = {"lora": None, "dora": None, "all": ["c_attn", "c_proj", "c_fc"] if family == "gpt2" else
               ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}
    config = LoraConfig(r=3, lora_alpha=5, lora_dropout=0.0, target_modules=targets[kind], use_dora=kind == "dora",
                        use_rslora=kind == "all", fan_in_fan_out=family == "gpt2", task_type=None if family == "bert" else "CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(folder + "/first")


def rows(text, count, at, most=256):
    ids = torch.tensor(list(open(text, "rb").read()), dtype=torch.long) % most
    x = torch.stack([ids[at + i * T:at + i * T + T] for i in range(count)])
    y = torch.stack([ids[at + i * T + 1:at + i * T + T + 1] for i in range(count)])
    return x, y


def loss_of(model, x, y):
    logits = model(x).logits
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1)), logits


def load(folder):
    kind = transformers.AutoModelForMaskedLM if "bert" in folder else transformers.AutoModelForCausalLM
    return kind.from_pretrained(folder).eval()


def train(folder, text):
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


def begin(root, text):
    for case in CASES:
        family, kind = case.split("-")
        folder = root + "/" + case
        os.mkdir(folder)
        make(family, kind, folder)
        if family != "bert":                # whose batches are masked at random
            train(folder, text)


@torch.no_grad()
def compare(root, text):
    for case in CASES:
        folder = root + "/" + case
        x, y = rows(text, 8, 0, 40 if "bert" in case else 256)
        base, _ = loss_of(load(folder + "/base"), x, y)
        a, logits = loss_of(PeftModel.from_pretrained(load(folder + "/base"), folder + "/mine").eval(), x, y)
        b, others = loss_of(load(folder + "/merged"), x, y)
        print("%s %.7f %.7f %.7f %.3g" % (case, base, a, b, (logits - others).abs().max()))


{"begin": begin, "compare": compare}[sys.argv[1]](*sys.argv[2:])
